import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

/**
 * The Java client behind the line protocol of clients/python/remote_driver.py: one JSON line in, one JSON line out.
 *
 * <p>Bytes travel as base64. Group members poll on threads of their own. The only argument is the group protocol, classic (default)
 * or consumer.
 */
public final class ClientDriver {
    private static final Duration WAIT = Duration.ofSeconds(60);
    private static final ObjectMapper JSON = new ObjectMapper();

    private final String bootstrap;
    private final String protocol;
    private final Map<Integer, Member> members = new HashMap<>();
    private final Map<Integer, KafkaProducer<byte[], byte[]>> lives = new HashMap<>();

    private ClientDriver(String bootstrap, String protocol) {
        this.bootstrap = bootstrap;
        this.protocol = protocol;
    }

    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        ClientDriver driver = new ClientDriver(System.getenv("BOOTSTRAP"), arguments.length > 0 ? arguments[0] : "classic");
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            ObjectNode answer = JSON.createObjectNode();
            try {
                answer.set("ok", driver.perform(JSON.readTree(line)));
            } catch (Exception problem) {
                Throwable cause = problem.getCause() == null ? problem : problem.getCause();
                answer.put("error", cause.getClass().getSimpleName() + ": " + cause.getMessage());
            }
            out.println(JSON.writeValueAsString(answer));
        }
        System.exit(0);
    }

    private JsonNode perform(JsonNode request) throws Exception {
        String op = request.get("op").asText();
        switch (op) {
            case "hello": return hello();
            case "create": return create(request);
            case "partitions": return partitions(request);
            case "live_open": return liveOpen(request);
            case "live_send": return liveSend(request);
            case "live_close": return liveClose(request);
            case "consume": return consume(request);
            case "times": return times(request);
            case "take": return take(request);
            case "member_open": return memberOpen(request);
            case "member_assigned": return member(request).assigned();
            case "member_drain": return member(request).drain();
            case "member_leave": return member(request).leave();
            default: throw new IllegalArgumentException("no such op: " + op);
        }
    }

    private JsonNode hello() {
        ObjectNode hello = JSON.createObjectNode();
        hello.put("name", protocol.equals("classic") ? "java" : "java-848");
        hello.put("version", AppInfoParser.getVersion());
        hello.put("none_is_end", false);
        hello.set("codecs", JSON.valueToTree(List.of("none", "gzip", "snappy", "lz4", "zstd")));
        return hello;
    }

    private JsonNode create(JsonNode request) throws Exception {
        try (Admin admin = Admin.create(properties())) {
            NewTopic topic = new NewTopic(request.get("topic").asText(), request.get("partitions").asInt(), (short) 1);
            admin.createTopics(List.of(topic)).all().get(30, TimeUnit.SECONDS);
        }
        return JSON.nullNode();
    }

    private JsonNode partitions(JsonNode request) throws Exception {
        String topic = request.get("topic").asText();
        try (Admin admin = Admin.create(properties())) {
            int count = admin.describeTopics(List.of(topic)).allTopicNames().get(30, TimeUnit.SECONDS).get(topic).partitions().size();
            return JSON.getNodeFactory().numberNode(count);
        }
    }

    private JsonNode liveOpen(JsonNode request) {
        Properties settings = properties();
        settings.put("compression.type", request.get("codec").asText());
        settings.put("enable.idempotence", request.get("idempotent").asBoolean());
        settings.put("acks", "all");
        settings.put("linger.ms", 20);
        lives.put(request.get("live").asInt(), new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer()));
        return JSON.nullNode();
    }

    private JsonNode liveSend(JsonNode request) throws Exception {
        KafkaProducer<byte[], byte[]> producer = lives.get(request.get("live").asInt());
        ArrayNode places = JSON.createArrayNode();
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (JsonNode row : request.get("records")) {
            sent.add(producer.send(outgoing(request.get("topic").asText(), row)));
        }
        producer.flush();
        for (Future<RecordMetadata> one : sent) {
            RecordMetadata where = one.get(60, TimeUnit.SECONDS);
            places.addArray().add(where.partition()).add(where.offset());
        }
        return places;
    }

    private JsonNode liveClose(JsonNode request) {
        lives.remove(request.get("live").asInt()).close();
        return JSON.nullNode();
    }

    private static ProducerRecord<byte[], byte[]> outgoing(String topic, JsonNode row) throws Exception {
        Integer partition = row.get(0).isNull() ? null : row.get(0).asInt();
        Long timestamp = row.get(4).isNull() ? null : row.get(4).asLong();
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, partition, timestamp, bytes(row.get(1)), bytes(row.get(2)));
        for (JsonNode header : row.get(3)) {
            record.headers().add(header.get(0).asText(), bytes(header.get(1)));
        }
        return record;
    }

    private JsonNode consume(JsonNode request) {
        String topic = request.get("topic").asText();
        Map<TopicPartition, Long> starts = new HashMap<>();
        for (JsonNode start : request.get("starts")) {
            starts.put(new TopicPartition(topic, start.get(0).asInt()), start.get(1).asLong());
        }
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(null, false)) {
            consumer.assign(starts.keySet());
            starts.forEach(consumer::seek);
            ArrayNode rows = JSON.createArrayNode();
            collect(consumer, request.get("count").asInt()).forEach(record -> rows.add(row(record)));
            return rows;
        }
    }

    private JsonNode times(JsonNode request) {
        Map<TopicPartition, Long> asked = new HashMap<>();
        for (int partition = 0; partition < request.get("partitions").asInt(); partition++) {
            asked.put(new TopicPartition(request.get("topic").asText(), partition), request.get("timestamp").asLong());
        }
        ArrayNode rows = JSON.createArrayNode();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(null, false)) {
            Map<TopicPartition, OffsetAndTimestamp> found = consumer.offsetsForTimes(asked);
            for (TopicPartition place : asked.keySet()) {
                OffsetAndTimestamp answer = found.get(place);
                rows.addArray().add(place.partition()).add(answer == null ? null : answer.offset());
            }
        }
        return rows;
    }

    private JsonNode take(JsonNode request) {
        String topic = request.get("topic").asText();
        int count = request.get("count").asInt();
        ArrayNode rows = JSON.createArrayNode();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(request.get("group").asText(), false)) {
            consumer.subscribe(List.of(topic));
            List<ConsumerRecord<byte[], byte[]>> got = collect(consumer, count);
            Map<TopicPartition, OffsetAndMetadata> ends = new HashMap<>();
            for (ConsumerRecord<byte[], byte[]> record : got.subList(0, count)) {
                rows.add(row(record));
                ends.put(new TopicPartition(topic, record.partition()), new OffsetAndMetadata(record.offset() + 1));
            }
            consumer.commitSync(ends);
            Map<TopicPartition, OffsetAndMetadata> stored = consumer.committed(ends.keySet());
            ends.forEach((place, end) -> {
                OffsetAndMetadata held = stored.get(place);
                if (held == null || held.offset() != end.offset()) {
                    throw new IllegalStateException(place + ": committed " + end.offset() + ", the group holds " + held);
                }
            });
        }
        return rows;
    }

    private static List<ConsumerRecord<byte[], byte[]>> collect(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        long deadline = System.nanoTime() + WAIT.toNanos();
        while (got.size() < count) {
            consumer.poll(Duration.ofMillis(200)).forEach(got::add);
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException(got.size() + " of " + count + " records came in " + WAIT);
            }
        }
        return got;
    }

    private JsonNode memberOpen(JsonNode request) {
        KafkaConsumer<byte[], byte[]> consumer = consumer(request.get("group").asText(), true);
        consumer.subscribe(List.of(request.get("topic").asText()));
        Member member = new Member(consumer);
        members.put(request.get("member").asInt(), member);
        member.thread.start();
        return JSON.nullNode();
    }

    private Member member(JsonNode request) {
        return members.get(request.get("member").asInt());
    }

    private Properties properties() {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        return settings;
    }

    private KafkaConsumer<byte[], byte[]> consumer(String group, boolean commits) {
        Properties settings = properties();
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", commits);
        settings.put("auto.commit.interval.ms", 200);
        if (group != null) {
            settings.put("group.id", group);
            settings.put("group.protocol", protocol);
        }
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static byte[] bytes(JsonNode text) {
        return text.isNull() ? null : Base64.getDecoder().decode(text.asText());
    }

    private static ArrayNode row(ConsumerRecord<byte[], byte[]> record) {
        ArrayNode row = JSON.createArrayNode().add(record.partition()).add(record.offset()).add(text(record.key())).add(text(record.value()));
        ArrayNode headers = row.addArray();
        for (Header header : record.headers()) {
            headers.addArray().add(header.key()).add(text(header.value()));
        }
        return row.add(record.timestamp());
    }

    private static String text(byte[] bytes) {
        return bytes == null ? null : Base64.getEncoder().encodeToString(bytes);
    }

    /** One member of a group, polling on its own thread; closing commits what was polled. */
    private static final class Member {
        private final KafkaConsumer<byte[], byte[]> consumer;
        private final Thread thread = new Thread(this::poll);
        private List<ArrayNode> got = new ArrayList<>();
        private Set<Integer> held = Set.of();
        private Exception failure;
        private volatile boolean stopping;

        Member(KafkaConsumer<byte[], byte[]> consumer) {
            this.consumer = consumer;
            thread.setDaemon(true);
        }

        private void poll() {
            try (consumer) {
                while (!stopping) {
                    var records = consumer.poll(Duration.ofMillis(50));
                    synchronized (this) {
                        held = consumer.assignment().stream().map(TopicPartition::partition).collect(Collectors.toSet());
                        records.forEach(record -> got.add(row(record)));
                    }
                }
            } catch (Exception problem) {
                synchronized (this) {
                    failure = problem;
                }
            }
        }

        synchronized JsonNode assigned() throws Exception {
            if (failure != null) {
                throw failure;
            }
            return JSON.valueToTree(held);
        }

        synchronized JsonNode drain() throws Exception {
            if (failure != null) {
                throw failure;
            }
            ArrayNode rows = JSON.createArrayNode();
            got.forEach(rows::add);
            got = new ArrayList<>();
            return rows;
        }

        JsonNode leave() throws Exception {
            stopping = true;
            thread.join(WAIT.toMillis());
            if (thread.isAlive()) {
                throw new IllegalStateException("a member did not close in time");
            }
            return JSON.nullNode();
        }
    }
}
