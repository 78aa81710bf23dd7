"""Reading HPACK header blocks (RFC 7541): a Huffman-coded header value must not hide a patient's name.

Decoding only. The Huffman code of Appendix B is canonical (within a length, codes rise with the symbol), so that its
257 code lengths say all.
"""

from __future__ import annotations

Field = tuple[bytes, bytes]

# code lengths of the symbols 0 .. 255 and of EOS (RFC 7541, Appendix B), as base-36 digits
_LENGTHS = (
    "dnsssssssoussussssssssusssssssss6aacd68baa8b8666555666666678f6cad677777777777777777777"
    "77878djde6f56565666577666567655677777fbedskmkkmmmnmnnnnnonoomnonnnnlmnmnnomlkmmnnlnmmo"
    "lmnnllmlnmnnkmmmnmmnqqkjmnmpqqqrrqopjlqrrqrollqqsrrrkoklmllnmmppooqnqrqqrrrrrsrrrrrqu"
)
_EOS = 256
# RFC 7541, Appendix A; the names without a value come last
_STATIC: list[Field] = [
    (b":authority", b""),
    (b":method", b"GET"),
    (b":method", b"POST"),
    (b":path", b"/"),
    (b":path", b"/index.html"),
    (b":scheme", b"http"),
    (b":scheme", b"https"),
    *((b":status", code) for code in (b"200", b"204", b"206", b"304", b"400", b"404", b"500")),
    (b"accept-charset", b""),
    (b"accept-encoding", b"gzip, deflate"),
    *(
        (name, b"")
        for name in b"accept-language accept-ranges accept access-control-allow-origin age allow authorization "
        b"cache-control content-disposition content-encoding content-language content-length content-location "
        b"content-range content-type cookie date etag expect expires from host if-match if-modified-since "
        b"if-none-match if-range if-unmodified-since last-modified link location max-forwards proxy-authenticate "
        b"proxy-authorization range referer refresh retry-after server set-cookie strict-transport-security "
        b"transfer-encoding user-agent vary via www-authenticate".split()
    ),
]
assert len(_STATIC) == 61 and len(_LENGTHS) == 257


def _code() -> dict[tuple[int, int], int]:
    """(length, code) -> symbol."""
    table, code, before = {}, 0, 0
    for length, symbol in sorted((int(digit, 36), symbol) for symbol, digit in enumerate(_LENGTHS)):
        code <<= length - before
        table[length, code] = symbol
        code, before = code + 1, length
    return table


_CODE = _code()


def huffman(data: bytes) -> bytes:
    """Decode a Huffman-coded string (section 5.2); the padding of ones at its end is dropped."""
    out, code, length = bytearray(), 0, 0
    for bit in range(8 * len(data)):
        code = code << 1 | data[bit >> 3] >> (7 - (bit & 7)) & 1
        length += 1
        symbol = _CODE.get((length, code))
        if symbol == _EOS:
            raise ValueError("EOS inside a Huffman-coded string")
        if symbol is not None:
            out.append(symbol)
            code = length = 0
    if length > 7 or code != (1 << length) - 1:
        raise ValueError("a Huffman-coded string ends within a symbol")
    return bytes(out)


class Decoder:
    """One direction of one connection: blocks must be given in the order in which they were sent."""

    def __init__(self) -> None:
        self._dynamic: list[Field] = []
        self._largest = 4096

    def decode(self, block: bytes) -> list[Field]:
        """Header fields of one block (section 6). Raises ValueError or IndexError when it is malformed."""
        fields, at = [], 0
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _integer(block, at, 7)
                fields.append(self._entry(index))
            elif first & 0xE0 == 0x20:
                self._largest, at = _integer(block, at, 5)
                self._evict()
            else:
                indexed = bool(first & 0x40)
                index, at = _integer(block, at, 6 if indexed else 4)
                name, at = (self._entry(index)[0], at) if index else _string(block, at)
                value, at = _string(block, at)
                fields.append((name, value))
                if indexed:
                    self._dynamic.insert(0, (name, value))
                    self._evict()
        return fields

    def _entry(self, index: int) -> Field:
        if index == 0:
            raise ValueError("index 0 names no header field")
        return [*_STATIC, *self._dynamic][index - 1]

    def _evict(self) -> None:
        while sum(len(name) + len(value) + 32 for name, value in self._dynamic) > self._largest:
            self._dynamic.pop()


def _integer(data: bytes, at: int, prefix: int) -> tuple[int, int]:
    """An integer (section 5.1) and where it ends."""
    full = (1 << prefix) - 1
    value, at = data[at] & full, at + 1
    if value < full:
        return value, at
    shift = 0
    while True:
        byte, at = data[at], at + 1
        value += (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """A string literal (section 5.2) and where it ends."""
    coded = bool(data[at] & 0x80)
    length, at = _integer(data, at, 7)
    if at + length > len(data):
        raise ValueError("a string literal is longer than its block")
    text = data[at : at + length]
    return (huffman(text) if coded else text), at + length
