"""Hands an image and its listing to a marketplace's API. What would be sent is shown; sending it takes a word more."""
