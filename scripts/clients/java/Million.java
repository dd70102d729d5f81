import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What clients/python/million.py does, through the Java client; the records are the same. Usage: Million produce|consume TOPIC COUNT */
public final class Million {
    private static final int PARTITIONS = 4;
    private static final long BASE = 1_790_000_000_000L;

    public static void main(String[] arguments) throws Exception {
        long began = System.nanoTime();
        int count = Integer.parseInt(arguments[2]);
        try {
            if (arguments[0].equals("produce")) {
                produce(arguments[1], count);
            } else {
                consume(arguments[1], count);
            }
        } catch (IllegalStateException problem) {
            System.out.println("FAIL million: java " + arguments[0] + ": " + problem.getMessage());
            System.exit(1);
        }
        System.out.printf("ok   million: java %s of %d records (%.1f s)%n", arguments[0], count, (System.nanoTime() - began) / 1e9);
    }

    private static byte[] key(long index) {
        return ByteBuffer.allocate(8).putLong(index).array();
    }

    private static byte[] value(MessageDigest md5, long index) {
        byte[] digest = md5.digest(key(index));
        byte[] value = new byte[(int) (20 + index * 7919 % 180)];
        for (int at = 0; at < value.length; at++) {
            value[at] = digest[at % digest.length];
        }
        return value;
    }

    private static Properties properties() {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", System.getenv("BOOTSTRAP"));
        return settings;
    }

    private static void expect(boolean holds, String message) {
        if (!holds) {
            throw new IllegalStateException(message);
        }
    }

    private static void produce(String topic, int count) throws Exception {
        try (Admin admin = Admin.create(properties())) {
            admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1))).all().get();
        }
        Properties settings = properties();
        settings.put("compression.type", "zstd");
        settings.put("linger.ms", 20);
        MessageDigest md5 = MessageDigest.getInstance("MD5");
        AtomicReference<String> failure = new AtomicReference<>();
        long[] next = new long[PARTITIONS];
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (int index = 0; index < count; index++) {
                producer.send(new ProducerRecord<>(topic, index % PARTITIONS, BASE + index, key(index), value(md5, index)), (where, problem) -> {
                    if (problem != null || where.offset() != next[where.partition()]++) {
                        failure.compareAndSet(null, problem != null ? problem.toString() : "acknowledged out of order at " + where);
                    }
                });
            }
            producer.flush();
        }
        expect(failure.get() == null, failure.get());
        expect(Arrays.stream(next).sum() == count, count + " sent, " + Arrays.stream(next).sum() + " acknowledged");
    }

    private static void consume(String topic, int count) throws Exception {
        MessageDigest md5 = MessageDigest.getInstance("MD5");
        List<TopicPartition> places = new ArrayList<>();
        for (int partition = 0; partition < PARTITIONS; partition++) {
            places.add(new TopicPartition(topic, partition));
        }
        long[] next = new long[PARTITIONS];
        Properties settings = properties();
        settings.put("max.poll.records", 10_000);
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.assign(places);
            consumer.seekToBeginning(places);
            long last = System.nanoTime();
            for (int got = 0; got < count; ) {
                var records = consumer.poll(Duration.ofMillis(500));
                for (ConsumerRecord<byte[], byte[]> record : records) {
                    int partition = record.partition();
                    String where = "partition " + partition + " offset " + record.offset();
                    expect(record.offset() == next[partition], where + " where " + next[partition] + " is next");
                    next[partition]++;
                    long index = record.offset() * PARTITIONS + partition;
                    boolean same = Arrays.equals(record.key(), key(index)) && Arrays.equals(record.value(), value(md5, index));
                    expect(same && record.timestamp() == BASE + index, where + ": key, value or timestamp is not what was sent");
                }
                got += records.count();
                last = records.isEmpty() ? last : System.nanoTime();
                expect(System.nanoTime() - last < 60_000_000_000L, got + " of " + count + " records came, then nothing for 60 s");
            }
            long ends = consumer.endOffsets(places).values().stream().mapToLong(Long::longValue).sum();
            expect(ends == count, count + " sent, the partitions hold " + ends);
        }
    }
}
