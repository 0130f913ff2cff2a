"""The headed Chromium of the desktop, page by page: the browser that people see over VNC."""
