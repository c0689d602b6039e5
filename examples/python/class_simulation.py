"""A small economy of objects that trade with each other.

The allocator serves instances with dicts, bound methods, tuples and floats. Some live for one step,
others for the whole run.
"""


class Random:
    """A generator that returns the same numbers in every version of Python."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % limit


class Offer:
    def __init__(self, trader, good, price):
        self.trader = trader
        self.good = good
        self.price = price


class Trader:
    def __init__(self, name, money):
        self.name = name
        self.money = money
        self.goods = {}
        self.history = []

    def offer(self, random):
        good = random.below(20)
        return Offer(self, good, 1.0 + random.below(100) / 8)

    def accept(self, offer, step):
        if self.money < offer.price or offer.trader is self:
            return False
        self.money -= offer.price
        offer.trader.money += offer.price
        self.goods[offer.good] = self.goods.get(offer.good, 0) + 1
        self.history.append((step, offer.good, offer.price))
        if len(self.history) > 50:
            del self.history[:25]
        return True


def main():
    random = Random(42)
    traders = [Trader("trader %d" % number, 500.0) for number in range(300)]
    trades = 0
    for step in range(6000):
        offers = [traders[random.below(300)].offer(random) for _ in range(120)]
        for offer in offers:
            trades += traders[random.below(300)].accept(offer, step)
    money = sum(trader.money for trader in traders)
    goods = sum(sum(trader.goods.values()) for trader in traders)
    print("trades", trades, "goods", goods, "money %.3f" % money)


if __name__ == "__main__":
    main()
