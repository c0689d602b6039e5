"""A recursive-descent parser for arithmetic, and an evaluator of its trees.

The allocator serves small objects of many types. They are allocated in the order of the text and
freed in the order of the tree, with frames and slices in between.
"""

import re

TOKEN = re.compile(r"\s*(?:(\d+)|(.))")


class Number:
    def __init__(self, value):
        self.value = value

    def evaluate(self):
        return self.value


class Operation:
    def __init__(self, symbol, left, right):
        self.symbol = symbol
        self.left = left
        self.right = right

    def evaluate(self):
        left, right = self.left.evaluate(), self.right.evaluate()
        if self.symbol == "+":
            return (left + right) % 1000003
        if self.symbol == "-":
            return (left - right) % 1000003
        return (left * right) % 1000003


class Parser:
    def __init__(self, text):
        self.tokens = [match.groups() for match in TOKEN.finditer(text)]
        self.place = 0

    def peek(self):
        return self.tokens[self.place] if self.place < len(self.tokens) else (None, None)

    def sum(self):
        return self.chain(("+", "-"), self.product)

    def product(self):
        return self.chain(("*",), self.atom)

    def chain(self, symbols, part):
        left = part()
        while self.peek()[1] in symbols:
            symbol = self.peek()[1]
            self.place += 1
            left = Operation(symbol, left, part())
        return left

    def atom(self):
        number, symbol = self.peek()
        self.place += 1
        if number is not None:
            return Number(int(number))
        assert symbol == "(", symbol
        inner = self.sum()
        self.place += 1
        return inner


def expression(seed, depth):
    if depth == 0:
        return str(seed % 97)
    symbol = "+-*"[seed % 3]
    return "(%s %s %s)" % (expression(seed * 5 + 1, depth - 1), symbol, expression(seed * 3 + 2, depth - 1))


def main():
    total = 0
    for seed in range(360):
        tree = Parser(expression(seed, 10)).sum()
        total = (total * 31 + tree.evaluate()) % 1000003
    print("expressions", total)


if __name__ == "__main__":
    main()
