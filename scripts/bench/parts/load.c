// The load client of scripts/bench, on librdkafka: one client for every broker, in C so that it is not the limit.
//
// Usage: load BOOTSTRAP COMMAND ...
//   topic NAME PARTITIONS                       makes a topic
//   produce TOPIC PARTITIONS MEGABYTES SECONDS  64 KiB values, one a batch, acks=all, spread over the partitions, until either is reached; prints MB/s
//   latency TOPIC SENDS BYTES                   one record in flight, acks=all; prints p50, p99 and the largest, in microseconds
//   consume TOPIC PARTITIONS MEGABYTES          reads from offset 0; prints MB/s from the first to the last record
//   first TOPIC                                 retries until one record is acknowledged (the topic must be there); prints nothing
// A result is one line of `key=value` words on stdout. Exit 1 on any failed delivery, with the reason on stderr.
#include <librdkafka/rdkafka.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VALUE_BYTES = 65536 - 512 };  // with the batch header and the request around it, below 64 KiB

static long delivered, failed;

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void fail(const char *what, const char *why) {
    fprintf(stderr, "load: %s: %s\n", what, why);
    exit(1);
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value) {
    char why[256];
    if (rd_kafka_conf_set(conf, key, value, why, sizeof why) != RD_KAFKA_CONF_OK) fail(key, why);
}

static void on_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client, (void)opaque;
    delivered++;
    if (message->err) {
        if (failed++ == 0) fprintf(stderr, "load: delivery: %s\n", rd_kafka_err2str(message->err));
    }
}

static rd_kafka_t *open_client(rd_kafka_type_t type, const char *bootstrap, rd_kafka_conf_t *conf) {
    char why[256];
    set(conf, "bootstrap.servers", bootstrap);
    set(conf, "reconnect.backoff.ms", "10");
    set(conf, "reconnect.backoff.max.ms", "50");
    set(conf, "log_level", "0");
    if (type == RD_KAFKA_PRODUCER) rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *client = rd_kafka_new(type, conf, why, sizeof why);
    if (!client) fail("client", why);
    return client;
}

static void wait_partitions(rd_kafka_t *client, const char *topic, int partitions) {
    rd_kafka_topic_t *handle = rd_kafka_topic_new(client, topic, NULL);
    double deadline = now() + 120;
    for (;;) {
        const struct rd_kafka_metadata *found;
        int ready = 0;
        if (rd_kafka_metadata(client, 0, handle, &found, 5000) == RD_KAFKA_RESP_ERR_NO_ERROR) {
            for (int at = 0; found->topic_cnt == 1 && at < found->topics[0].partition_cnt; at++) ready += found->topics[0].partitions[at].leader >= 0;
            rd_kafka_metadata_destroy(found);
        }
        if (ready == partitions) break;
        if (now() > deadline) fail(topic, "not every partition has a leader after 120 s");
        struct timespec pause = {0, 20 * 1000 * 1000};
        nanosleep(&pause, NULL);
    }
    rd_kafka_topic_destroy(handle);
}

static int make_topic(const char *bootstrap, const char *topic, int partitions) {
    char why[256];
    rd_kafka_t *client = open_client(RD_KAFKA_PRODUCER, bootstrap, rd_kafka_conf_new());
    rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(topic, partitions, 1, why, sizeof why);
    if (!wanted) fail("topic", why);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
    rd_kafka_CreateTopics(client, &wanted, 1, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 60000);
    if (!event) fail("topic", "no answer in 60 s");
    size_t count = 0;
    const rd_kafka_CreateTopics_result_t *result = rd_kafka_event_CreateTopics_result(event);
    if (!result || rd_kafka_event_error(event)) fail("topic", rd_kafka_event_error_string(event));
    const rd_kafka_topic_result_t **topics = rd_kafka_CreateTopics_result_topics(result, &count);
    if (count != 1 || rd_kafka_topic_result_error(topics[0])) fail("topic", rd_kafka_topic_result_error_string(topics[0]));
    rd_kafka_event_destroy(event);
    wait_partitions(client, topic, partitions);
    rd_kafka_NewTopic_destroy(wanted);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(client);
    return 0;
}

static void send_value(rd_kafka_t *client, const char *topic, int partition, void *value, size_t size) {
    for (;;) {
        rd_kafka_resp_err_t error = rd_kafka_producev(
            client, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_VALUE(value, size), RD_KAFKA_V_END);
        if (!error) return;
        if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL) fail("produce", rd_kafka_err2str(error));
        rd_kafka_poll(client, 10);
    }
}

static void fill(char *value, size_t size) {
    uint64_t state = 88172645463325252ull;
    for (size_t at = 0; at < size; at++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        value[at] = (char)state;
    }
}

static int produce(const char *bootstrap, const char *topic, int partitions, long megabytes, double seconds) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "acks", "all");
    set(conf, "batch.size", "65536");
    set(conf, "linger.ms", "5");
    set(conf, "queue.buffering.max.kbytes", "65536");
    rd_kafka_t *client = open_client(RD_KAFKA_PRODUCER, bootstrap, conf);
    static char value[VALUE_BYTES];
    fill(value, sizeof value);
    wait_partitions(client, topic, partitions);
    long count = megabytes * 1000000 / VALUE_BYTES;
    double began = now();
    long index = 0;
    for (; index < count && now() - began < seconds; index++) {
        memcpy(value, &index, sizeof index);
        for (;;) {
            rd_kafka_resp_err_t error = rd_kafka_producev(client, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION((int)(index % partitions)),
                RD_KAFKA_V_VALUE(value, sizeof value), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
            if (!error) break;
            if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL) fail("produce", rd_kafka_err2str(error));
            rd_kafka_poll(client, 10);
        }
        rd_kafka_poll(client, 0);
    }
    if (rd_kafka_flush(client, 120000)) fail("produce", "not everything was acknowledged in 120 s");
    double took = now() - began;
    count = index;
    if (failed || delivered != count) fail("produce", "a record was not delivered");
    printf("mb_s=%.1f seconds=%.3f bytes=%ld\n", count * (double)VALUE_BYTES / 1e6 / took, took, count * (long)VALUE_BYTES);
    rd_kafka_destroy(client);
    return 0;
}

static int by_value(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

static int latency(const char *bootstrap, const char *topic, long sends, size_t size) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "acks", "all");
    set(conf, "linger.ms", "0");
    set(conf, "socket.nagle.disable", "true");
    rd_kafka_t *client = open_client(RD_KAFKA_PRODUCER, bootstrap, conf);
    wait_partitions(client, topic, 1);
    char *value = malloc(size);
    double *took = malloc(sizeof *took * sends);
    if (!value || !took) fail("latency", "out of memory");
    fill(value, size);
    long warm = sends / 10;
    for (long index = -warm; index < sends; index++) {
        long before = delivered;
        double began = now();
        send_value(client, topic, 0, value, size);
        while (delivered == before) rd_kafka_poll(client, 1000);
        if (index >= 0) took[index] = now() - began;
    }
    if (failed) fail("latency", "a record was not delivered");
    qsort(took, sends, sizeof *took, by_value);
    printf("p50_us=%.0f p99_us=%.0f max_us=%.0f sends=%ld\n", took[sends / 2] * 1e6, took[sends * 99 / 100] * 1e6, took[sends - 1] * 1e6, sends);
    free(value), free(took);
    rd_kafka_destroy(client);
    return 0;
}

static int consume(const char *bootstrap, const char *topic, int partitions, long megabytes) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "group.id", "bench");
    set(conf, "enable.auto.commit", "false");
    set(conf, "fetch.message.max.bytes", "8388608");
    set(conf, "queued.max.messages.kbytes", "262144");
    rd_kafka_t *client = open_client(RD_KAFKA_CONSUMER, bootstrap, conf);
    rd_kafka_poll_set_consumer(client);
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new(partitions);
    for (int at = 0; at < partitions; at++) rd_kafka_topic_partition_list_add(all, topic, at)->offset = 0;
    if (rd_kafka_assign(client, all)) fail("consume", "assign");
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(client);
    long count = megabytes * 1000000 / VALUE_BYTES, got = 0, bytes = 0;
    double began = 0, last = now();
    static rd_kafka_message_t *messages[1000];
    while (got < count) {
        ssize_t some = rd_kafka_consume_batch_queue(queue, 200, messages, 1000);
        for (ssize_t at = 0; at < some; at++) {
            if (messages[at]->err) fail("consume", rd_kafka_message_errstr(messages[at]));
            bytes += messages[at]->len, got++;
            rd_kafka_message_destroy(messages[at]);
        }
        if (some > 0) {
            last = now();
            if (began == 0) began = last;
        }
        if (now() - last > 60) fail("consume", "nothing came for 60 s");
    }
    printf("mb_s=%.1f seconds=%.3f bytes=%ld\n", bytes / 1e6 / (last - began), last - began, bytes);
    rd_kafka_topic_partition_list_destroy(all);
    rd_kafka_queue_destroy(queue);
    rd_kafka_consumer_close(client);
    rd_kafka_destroy(client);
    return 0;
}

static int first(const char *bootstrap, const char *topic) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "acks", "all");
    set(conf, "linger.ms", "0");
    set(conf, "retry.backoff.ms", "10");
    set(conf, "topic.metadata.refresh.fast.interval.ms", "20");
    rd_kafka_t *client = open_client(RD_KAFKA_PRODUCER, bootstrap, conf);
    send_value(client, topic, 0, "first", 5);
    if (rd_kafka_flush(client, 180000) || failed) fail("first", "no record was acknowledged in 180 s");
    rd_kafka_destroy(client);
    return 0;
}

int main(int count, char **words) {
    const char *command = count > 3 ? words[2] : "";
    if (count == 5 && !strcmp(command, "topic")) return make_topic(words[1], words[3], atoi(words[4]));
    if (count == 7 && !strcmp(command, "produce")) return produce(words[1], words[3], atoi(words[4]), atol(words[5]), atof(words[6]));
    if (count == 6 && !strcmp(command, "consume")) return consume(words[1], words[3], atoi(words[4]), atol(words[5]));
    if (count == 6 && !strcmp(command, "latency")) return latency(words[1], words[3], atol(words[4]), (size_t)atol(words[5]));
    if (count == 4 && !strcmp(command, "first")) return first(words[1], words[3]);
    fprintf(stderr, "usage: load BOOTSTRAP topic|produce|latency|consume|first ... (see the head of load.c)\n");
    return 2;
}
