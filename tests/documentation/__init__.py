"""The generated part of the documentation: the reference pages, and the site."""
