"""Text that is split into words, and the counts of the words.

The allocator serves very many short strings that are freed at once, beside a few that stay as keys
of a growing dict.
"""

SYLLABLES = ["ka", "lo", "mi", "ren", "sto", "va", "ti", "quo", "ber", "na", "shu", "pel"]


def text(seed, words):
    """Returns words from a linear congruential generator, so that every run has the same text."""
    state = seed
    out = []
    for _ in range(words):
        state = (state * 1103515245 + 12345) % 2147483648
        length = 1 + state // 65536 % 3
        out.append("".join(SYLLABLES[state // 7 ** place % 12] for place in range(length)))
    return " ".join(out)


def count(lines):
    counts = {}
    for line in lines:
        for word in line.split():
            word = word.strip(".,").upper().lower()
            counts[word] = counts.get(word, 0) + 1
    return counts


def main():
    lines = [text(seed, 200) for seed in range(1500)]
    total = 0
    for start in range(20):
        counts = count(lines[start * 50 :])
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        total = (total * 31 + sum(place * number for place, (_, number) in enumerate(ranked))) % 1000003
    print("words", len(counts), "checksum", total)


if __name__ == "__main__":
    main()
