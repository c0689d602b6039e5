"""A tree of small objects, built and dropped several times.

The allocator serves some millions of objects of two sizes. They live equally long, so whole pools
and arenas fill, become empty and are used again.
"""


class Node:
    __slots__ = ("key", "left", "right")

    def __init__(self, key, left, right):
        self.key = key
        self.left = left
        self.right = right


def build(depth, key):
    if depth == 0:
        return Node(key, None, None)
    return Node(key, build(depth - 1, 2 * key), build(depth - 1, 2 * key + 1))


def checksum(node):
    if node is None:
        return 0
    return (node.key + 31 * checksum(node.left) + 37 * checksum(node.right)) % 1000003


def main():
    keeper = build(14, 1)
    total = 0
    for depth in [17, 10, 16, 12, 17, 14, 18, 16]:
        total = (total * 7 + checksum(build(depth, depth))) % 1000003
    print("trees", total, "kept", checksum(keeper))


if __name__ == "__main__":
    main()
