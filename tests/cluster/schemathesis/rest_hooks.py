"""Hooks of schemathesis: see schemathesis.toml."""

import schemathesis


def whole(value):
    """JSON Schema takes 1.0 for an integer; the API does not, and never did."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2 ** 63:
        return int(value)
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


@schemathesis.hook
def map_body(context, body):  # pylint: disable=unused-argument
    return whole(body)
