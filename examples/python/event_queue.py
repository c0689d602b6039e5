"""A simulation driven by a queue of events.

The allocator serves tuples, floats and closures. They are freed in a different order than they were
allocated.
"""

import heapq


class Simulation:
    def __init__(self):
        self.queue = []
        self.number = 0
        self.state = 12345
        self.served = {}

    def draw(self):
        self.state = (self.state * 1103515245 + 12345) % 2147483648
        return self.state / 2147483648.0

    def at(self, time, action):
        self.number += 1
        heapq.heappush(self.queue, (time, self.number, action))

    def customer(self, name, visits):
        def arrive(time):
            till = int(self.draw() * 8)
            self.served.setdefault(till, []).append((name, round(time, 3)))
            if len(self.served[till]) > 400:
                del self.served[till][:200]
            if visits:
                self.at(time + self.draw() * 50, self.customer(name, visits - 1))

        return arrive

    def run(self):
        events = 0
        while self.queue:
            time, _, action = heapq.heappop(self.queue)
            action(time)
            events += 1
        return events, time


def main():
    simulation = Simulation()
    for number in range(4000):
        simulation.at(simulation.draw() * 100, simulation.customer("customer %d" % number, 160))
    events, time = simulation.run()
    kept = sum(len(served) for served in simulation.served.values())
    print("events", events, "ended at %.3f" % time, "kept", kept)


if __name__ == "__main__":
    main()
