# Starts a virtual machine with several threads, and a child of it.
java -version 2>&1 | sed 's/[0-9][0-9]*/N/g' | head -n 1
if java --list-modules | grep -q '^jdk.compiler'; then
    cat > Main.java <<'END'
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;
import java.util.zip.*;
import java.nio.*;

public class Main {
    public static void main(String[] arguments) throws Exception {
        Map<String, List<String>> words = new TreeMap<>();
        for (int i = 0; i < 500000; i++) words.computeIfAbsent("key" + i % 10007, key -> new ArrayList<>()).add("value " + i);
        System.out.println(words.size() + " " + words.toString().hashCode());
        ExecutorService pool = Executors.newFixedThreadPool(8);
        List<Future<Long>> sums = new ArrayList<>();
        for (int t = 0; t < 8; t++) {
            int turn = t;
            sums.add(pool.submit(() -> {
                long sum = 0;
                for (int i = 0; i < 3000; i++) {
                    ByteBuffer buffer = ByteBuffer.allocateDirect(100 + i * turn % 5000);
                    while (buffer.remaining() > 8) buffer.putLong(i);
                    sum += buffer.position();
                    Deflater deflater = new Deflater();
                    deflater.setInput(new byte[i % 2000]);
                    deflater.finish();
                    sum += deflater.deflate(new byte[4000]);
                    deflater.end();
                }
                return sum;
            }));
        }
        for (Future<Long> sum : sums) System.out.println(sum.get());
        pool.shutdown();
        System.out.println(IntStream.range(0, 1000000).parallel().filter(i -> Integer.toString(i).contains("77")).count());
        Process child = new ProcessBuilder("sh", "-c", "echo child; exit 3").redirectErrorStream(true).start();
        System.out.println(new String(child.getInputStream().readAllBytes()).trim() + " " + child.waitFor());
    }
}
END
    java Main.java
fi
