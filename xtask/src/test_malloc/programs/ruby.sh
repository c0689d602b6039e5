# Hashes, strings, threads and processes.
cat > main.rb <<'END'
require 'digest'
require 'json'
words = Hash.new { |hash, key| hash[key] = [] }
400_000.times { |i| words["key#{i * 7919 % 10007}"] << "value #{i}" }
puts words.size, Digest::SHA256.hexdigest(JSON.generate(words))
text = (1..100_000).map { |i| "word#{i}" }.join(' ')
puts text.scan(/\bword(\d*7)\b/).size, text.gsub(/word(\d)/) { "<#{$1}>" }.size
puts (1..4).map { |n| Thread.new { (1..50_000).map { |i| 'x' * (i % 300 + n) }.sum(&:size) } }.map(&:value).inspect
Node = Struct.new(:value, :children)
def tree(depth) = Node.new(depth, depth.zero? ? [] : Array.new(3) { tree(depth - 1) })
def total(node) = node.value + node.children.sum { |child| total(child) }
puts total(tree(9))
GC.start
puts (1..5).map { |i| fork { exit!(Array.new(10_000) { |j| 'y' * j % (i + 100) rescue i }.size % 200) } }.map { |pid| Process.wait2(pid)[1].exitstatus }.inspect
puts (1..400).inject(:*).to_s.size
END
ruby --disable-gems main.rb
