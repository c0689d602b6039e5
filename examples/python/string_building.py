"""Strings that are built piece by piece.

The allocator serves strings of up to some thousands of characters, which are copied, sliced, joined
and formatted. Short strings come from the pools, long ones from the layer below.
"""


def rows(count):
    for number in range(count):
        name = "row-" + str(number).rjust(6, "0")
        cells = [name[place:] + name[:place] for place in range(0, 10, 3)]
        yield "|".join(cells) + " = " + format(number / 7, ".4f")


def main():
    total = 0
    for round_number in range(60):
        page = []
        for row in rows(12000):
            page.append(row.replace("row", "r%d" % (len(page) % 10)))
            if len(page) == 60:
                text = "\n".join(page)
                halves = text[: len(text) // 2], text[len(text) // 2 :]
                total = (total * 31 + len(halves[0]) + halves[1].count("0")) % 1000003
                page = [line.encode("utf-8").decode("ascii") for line in page[:5]]
        total += round_number
    print("strings", total)


if __name__ == "__main__":
    main()
