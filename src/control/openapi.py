#!/usr/bin/python3
"""openapi.py YAML OUTPUT: the OpenAPI document as JSON in a C array."""

import json
import sys

import yaml


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        text = json.dumps(yaml.safe_load(f), separators=(",", ":"), ensure_ascii=True).encode()
    rows = (",".join(map(str, text[i:i + 24])) for i in range(0, len(text), 24))
    with open(sys.argv[2], "w", encoding="ascii") as f:
        f.write("#include \"control/rest_internal.h\"\n\nconst char openapi_json[] = {\n")
        f.write(",\n".join(rows))
        f.write(f"}};\nconst size_t openapi_json_len = {len(text)};\n")


main()
