"""The desktop: picture, mouse, keyboard, clipboard, recording."""
