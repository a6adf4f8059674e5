"""What an upload reveals: attackers that look for the edited subjects in it.

What the server receives is here any matrix ``F``, ``(d_key, n)``, with ``F F^T`` equal
to the gram matrix it was sent: the keys, a sealed factor, or a factor of the gram
matrix or of a sum of them. ``docs/privacy.md`` has the threat model.
"""
