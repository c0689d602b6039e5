"""Dicts and lists that grow, shrink and are dropped.

The allocator resizes blocks across all size classes and beyond them. The tables of growing dicts
move between the pools and the layer below.
"""


def churn_lists(rounds):
    total = 0
    lists = []
    for number in range(rounds):
        items = [number]
        while len(items) < number % 90:
            items.append(number + len(items))
        lists.append(items)
        if len(lists) > 2000:
            gone = lists.pop(number * 7919 % len(lists))
            total += len(gone) + gone[-1]
    return total


def churn_dicts(rounds):
    total = 0
    live = {}
    for number in range(rounds):
        entry = {place: number * place for place in range(number % 23)}
        live[number] = entry
        entry["name"] = str(number)
        if number >= 3000:
            gone = live.pop(number - 3000)
            total += len(gone) + int(gone["name"]) % 11
    return total


def main():
    print("lists", churn_lists(240000), "dicts", churn_dicts(600000))


if __name__ == "__main__":
    main()
