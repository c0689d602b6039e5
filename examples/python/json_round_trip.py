"""JSON that is written and read again.

The allocator serves bursts of short strings, dicts and lists of many sizes from C code. Long strings
come from the layer below.
"""

import json


def record(number):
    return {
        "id": number,
        "name": "record %d" % number,
        "tags": ["tag%d" % (number % step) for step in range(1, 8)],
        "score": number * 0.25,
        "nested": {"left": number % 17, "right": [number, number + 1, {"deep": None}]},
        "flag": number % 3 == 0,
    }


def main():
    total = 0
    for batch in range(60):
        records = [record(number) for number in range(batch * 1000, batch * 1000 + 3000)]
        text = json.dumps(records, sort_keys=True)
        again = json.loads(text)
        assert again == records
        total = (total * 31 + len(text) + sum(item["id"] for item in again)) % 1000003
    print("json", total)


if __name__ == "__main__":
    main()
