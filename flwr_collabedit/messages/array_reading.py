"""Arrays of strangers: checked before memory is given to them.

Flower's ``Array.numpy()`` lets NumPy allocate whatever shape the bytes claim, and tells
garbage by many kinds of exceptions.
"""

import math
from io import BytesIO

import numpy as np
from flwr.app import Array
from numpy.lib import format as npy
from numpy.typing import NDArray

from flwr_collabedit.errors import PayloadError

_MAX_SIZE = 2**31


def read_array(key: str, array: Array) -> NDArray[np.generic]:
    """Return what the array's bytes hold, if they hold exactly that.

    Never takes more memory than the bytes themselves do.

    Raises
    ------
    PayloadError
        If the bytes are no NumPy array of numbers, or more or fewer than their header
        says.
    """
    data, buffer = array.data, BytesIO(array.data)
    try:
        version = npy.read_magic(buffer)
        read = {
            (1, 0): npy.read_array_header_1_0,
            (2, 0): npy.read_array_header_2_0,
        }[version]
        shape, _, dtype = read(buffer)
        wanted = math.prod(shape) * dtype.itemsize
        if dtype.kind not in "fiu" or any(not 0 <= size < _MAX_SIZE for size in shape):
            raise PayloadError(f"{key} is {dtype} of shape {shape}; expected numbers.")
        if len(data) - buffer.tell() != wanted:
            raise PayloadError(
                f"{key} has {len(data) - buffer.tell()} bytes for {dtype} of shape "
                f"{shape}; expected {wanted}."
            )
        return array.numpy()
    except PayloadError:
        raise
    # The bytes decide what NumPy's parser, which evaluates a literal, stumbles over.
    except Exception as error:
        raise PayloadError(
            f"{key} is no NumPy array ({type(error).__name__}). Use the ClientApp of "
            "flwr_collabedit."
        ) from None
