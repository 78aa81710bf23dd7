"""The release package: bytes in, bytes out; no pickle, nothing executable."""

from sfumato_common.package.package import Package, PackageImage, build_package, check_image, open_package
from sfumato_common.package.png import decode_png, encode_png, pixel_hash

__all__ = [
    "Package",
    "PackageImage",
    "build_package",
    "check_image",
    "decode_png",
    "encode_png",
    "open_package",
    "pixel_hash",
]
