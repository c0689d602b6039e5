# A large generated file of C++ with templates, and a program that uses the standard library.
set -e
{
    printf '%s\n' '#include <algorithm>' '#include <any>' '#include <functional>' '#include <iostream>' \
        '#include <map>' '#include <memory>' '#include <regex>' '#include <sstream>' '#include <string>' \
        '#include <thread>' '#include <unordered_map>' '#include <variant>' '#include <vector>'
    for ((i = 0; i < 150; i++)); do
        cat <<END
template <int N> struct T$i { std::map<std::string, std::vector<std::variant<int, std::string>>> map;
    int run(int x) { for (int i = 0; i < N; i++) { map[std::to_string(i * x % 11)].emplace_back(i); map["k"].emplace_back(std::string(i % 40, 'x')); }
        int sum = 0; for (auto &[key, values] : map) { std::sort(values.begin(), values.end()); sum += key.size() * values.size(); } return sum; } };
END
    done
    cat <<'END'
int main() {
    long total = 0;
    std::vector<std::thread> threads;
    std::vector<long> sums(4);
    for (int t = 0; t < 4; t++) threads.emplace_back([t, &sums] {
        std::unordered_map<std::string, std::shared_ptr<std::string>> map;
        for (int i = 0; i < 200000; i++) map[std::to_string(i * 7919 % 5000)] = std::make_shared<std::string>(i % 300, 'a');
        for (auto &entry : map) sums[t] += entry.second->size();
    });
    for (auto &thread : threads) thread.join();
    for (long sum : sums) total += sum;
    std::ostringstream text;
    for (int i = 0; i < 3000; i++) text << "word" << i << ' ';
    std::string all = text.str();
    std::regex pattern("word([0-9]*7)\\b");
    total += std::distance(std::sregex_iterator(all.begin(), all.end(), pattern), std::sregex_iterator());
    try { std::vector<int> impossible(all.max_size()); } catch (const std::exception &error) { std::cout << error.what() << '\n'; }
    try { std::any_cast<int>(std::any(std::string("x"))); } catch (const std::bad_any_cast &error) { std::cout << error.what() << '\n'; }
END
    for ((i = 0; i < 150; i++)); do echo "    total += T$i<$((i % 30 + 20))>().run($i + 1);"; done
    printf '    std::cout << total << std::endl;\n}\n'
} > large.cpp
g++ -std=c++17 -O1 -g -pthread -c large.cpp -o large.o
sha256sum large.o
g++ -pthread large.o -o large
./large
