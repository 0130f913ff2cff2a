"""The way in to what lies behind: desktop, DevTools, Jupyter, VS Code, programs on ports."""
