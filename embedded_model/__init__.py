"""How the embedded model is made; not part of the installed package."""
