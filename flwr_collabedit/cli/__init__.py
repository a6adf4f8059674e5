"""The commands of ``collabedit`` that need no simulation, a module each."""
