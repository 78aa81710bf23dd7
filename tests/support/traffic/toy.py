"""Small things that the tests of the traffic tools scan: a name, a count, and what a client writes on a connection."""

from support.traffic.layers import Layer, layers, unfold
from support.traffic.relay import Connection

SECRET = "Quartzbrine^Ottoline"
COUNT = 163


def found(scanner, data, kind="bytes"):
    return {hit.what for layer in unfold(Layer("given", data, kind)) for hit in scanner.scan(layer)}


def hits_on(scanner, sent, alpn):
    connection = Connection("alder", "superlink", alpn, b"", bytearray(sent))
    return {hit.what for layer in layers(connection, "c") for hit in scanner.scan(layer)}
