// The load client of scripts/bench, on librdkafka: one client for every broker, in C so that it is not the limit.
//
// Usage: load BOOTSTRAP COMMAND KEY=VALUE ...
//   produce topic= partitions= seconds= warm= value= batch= clients= linger= keyed= idempotent= lz4= in_flight= pid=
//                   records of `value` bytes from `clients` producers, acks=all; prints what was acknowledged between warm and warm + seconds
//                   in_flight= requests on their way per connection, 5 unless said; 0 leaves librdkafka its own bound
//   latency topic= sends= value=                          one record in flight, acks=all
//   open    topic= partitions= rate= seconds= warm= value=  a record is due each 1/rate s, whatever the broker does; latency from then on
//   consume topic= partitions= bytes= passes= pid=        reads `bytes` of values from offset 0 on, so many times
// How it works: a record goes to a partition by its key (keyed=1), else a batch's worth of them to one partition and then to the next. With
// several partitions each gets a record first, which does not count. pid= names the broker's process, whose CPU time is told.
// A result is one line of `key=value` words on stdout. Exit 1 on any failed delivery, with the reason on stderr.
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS_MAX = 64, VALUE_MAX = 1 << 20, FLUSH_MS = 120000 };

typedef struct {
    const char *bootstrap, *topic;
    long partitions, seconds, warm, value, batch, clients, sends, rate, bytes, passes;
    long keyed, idempotent, lz4, in_flight, pid;
    const char *linger;
} job_t;

static atomic_long delivered, failed;
static atomic_int over;

static double now(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void pause_s(double seconds) {
    if (seconds <= 0) return;
    struct timespec time = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    nanosleep(&time, NULL);
}

static void fail(const char *what, const char *why) {
    fprintf(stderr, "load: %s: %s\n", what, why);
    exit(1);
}

// User and system seconds of a process, all its threads.
static double cpu_seconds(long pid) {
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) fail(path, "no such process");
    size_t len = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[len] = 0;
    char *behind = strrchr(text, ')');
    unsigned long user = 0, system = 0;
    if (!behind || sscanf(behind + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2) fail(path, "not understood");
    return (double)(user + system) / sysconf(_SC_CLK_TCK);
}

static void set(rd_kafka_conf_t *conf, const char *key, const char *value) {
    char why[256];
    if (rd_kafka_conf_set(conf, key, value, why, sizeof why) != RD_KAFKA_CONF_OK) fail(key, why);
}

static void set_number(rd_kafka_conf_t *conf, const char *key, long value) {
    char text[32];
    snprintf(text, sizeof text, "%ld", value);
    set(conf, key, text);
}

static int by_value(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return (left > right) - (left < right);
}

// Sorts `took`, seconds, and prints its quantiles: the smallest value that at least such a share does not exceed.
static void print_latencies(double *took, long count) {
    qsort(took, count, sizeof *took, by_value);
    const struct { const char *name; double share; } quantiles[] = {{"p50_ms", 0.5}, {"p99_ms", 0.99}, {"p999_ms", 0.999}, {"max_ms", 1}};
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++) {
        long at = (long)(quantiles[i].share * count + 0.999999) - 1;
        at = at < 0 ? 0 : at >= count ? count - 1 : at;
        printf("%s=%.4f ", quantiles[i].name, took[at] * 1e3);
    }
    printf("samples=%ld\n", count);
}

static void note_failure(const rd_kafka_message_t *message) {
    // What was still waiting when the measured time was over has been thrown away.
    if (message->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE) return;
    if (message->err && failed++ == 0) fprintf(stderr, "load: delivery: %s\n", rd_kafka_err2str(message->err));
}

static void on_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client, (void)opaque;
    note_failure(message);
    delivered += !message->err;
}

static rd_kafka_t *open_client(rd_kafka_type_t type, const job_t *job, rd_kafka_conf_t *conf) {
    char why[256];
    set(conf, "bootstrap.servers", job->bootstrap);
    set(conf, "log_level", "0");
    set(conf, "socket.nagle.disable", "true");
    rd_kafka_t *client = rd_kafka_new(type, conf, why, sizeof why);
    if (!client) fail("client", why);
    return client;
}

static void wait_partitions(rd_kafka_t *client, const job_t *job) {
    rd_kafka_topic_t *handle = rd_kafka_topic_new(client, job->topic, NULL);
    double deadline = now() + 120;
    for (;;) {
        const struct rd_kafka_metadata *found;
        long ready = 0;
        if (rd_kafka_metadata(client, 0, handle, &found, 5000) == RD_KAFKA_RESP_ERR_NO_ERROR) {
            for (int at = 0; found->topic_cnt == 1 && at < found->topics[0].partition_cnt; at++) ready += found->topics[0].partitions[at].leader >= 0;
            rd_kafka_metadata_destroy(found);
        }
        if (ready == job->partitions) break;
        if (now() > deadline) fail(job->topic, "not every partition has a leader after 120 s");
        pause_s(0.02);
    }
    rd_kafka_topic_destroy(handle);
}

static void fill(char *value, long size, int words, uint64_t state) {
    static const char *vocabulary[] = {"order ", "customer ", "2026-11-28 ", "status=paid ", "amount=", "17.50 ", "EUR ", "shipped ", "id=", "0042 "};
    for (long at = 0; at < size;) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        if (!words) {
            value[at++] = (char)state;
            continue;
        }
        char number[24];
        snprintf(number, sizeof number, "%05lx ", (unsigned long)(state & 0xfffff));
        const char *word = state >> 60 < 6 ? number : vocabulary[(state >> 32) % 10];
        for (; *word && at < size; word++) value[at++] = *word;
    }
}

static void send_record(rd_kafka_t *client, const job_t *job, int partition, void *value, size_t size, uint64_t *key, void *opaque) {
    for (;;) {
        rd_kafka_resp_err_t error = rd_kafka_producev(client, RD_KAFKA_V_TOPIC(job->topic), RD_KAFKA_V_PARTITION(partition),
            RD_KAFKA_V_VALUE(value, size), RD_KAFKA_V_KEY(key, key ? sizeof *key : 0), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
            RD_KAFKA_V_OPAQUE(opaque), RD_KAFKA_V_END);
        if (!error) return;
        if (error != RD_KAFKA_RESP_ERR__QUEUE_FULL) fail("produce", rd_kafka_err2str(error));
        rd_kafka_poll(client, 10);
    }
}

// Ends with everything acknowledged, or the run fails.
static void finish(rd_kafka_t *client) {
    if (rd_kafka_flush(client, FLUSH_MS)) fail("produce", "not everything was acknowledged in 120 s");
    if (failed) fail("produce", "a record was not delivered");
    rd_kafka_destroy(client);
}

static rd_kafka_t *producer(const job_t *job) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "acks", "all");
    set(conf, "linger.ms", job->linger);
    set(conf, "queue.buffering.max.kbytes", "65536");
    set(conf, "queue.buffering.max.messages", "1000000");
    set(conf, "batch.num.messages", "1000000");
    set_number(conf, "batch.size", job->batch);
    set(conf, "message.max.bytes", "1048576");
    if (job->in_flight) set_number(conf, "max.in.flight", job->in_flight);
    if (job->keyed) set(conf, "partitioner", "murmur2_random");
    if (job->idempotent) set(conf, "enable.idempotence", "true");
    if (job->lz4) set(conf, "compression.codec", "lz4");
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    return open_client(RD_KAFKA_PRODUCER, job, conf);
}

typedef struct {
    const job_t *job;
    rd_kafka_t *client;
    uint64_t seed;
} worker_t;

static void *work(void *argument) {
    worker_t *worker = argument;
    const job_t *job = worker->job;
    // Values of several kinds, so that lz4 finds the repetition that its data has and not that of one value sent again.
    enum { KINDS = 64 };
    char *values = malloc((size_t)KINDS * job->value);
    if (!values) fail("produce", "out of memory");
    for (int i = 0; i < KINDS; i++) fill(values + (size_t)i * job->value, job->value, job->lz4, worker->seed + i * 7919u);
    long a_batch = job->batch / (job->value + 16) > 0 ? job->batch / (job->value + 16) : 1;
    uint64_t key = worker->seed;
    for (long index = 0; !over; index++) {
        key ^= key << 13, key ^= key >> 7, key ^= key << 17;
        int partition = job->keyed ? RD_KAFKA_PARTITION_UA : (int)((index / a_batch + (long)worker->seed) % job->partitions);
        send_record(worker->client, job, partition, values + (size_t)(index % KINDS) * job->value, job->value, job->keyed ? &key : NULL, NULL);
        if (index % 64 == 0) rd_kafka_poll(worker->client, 0);
    }
    rd_kafka_purge(worker->client, RD_KAFKA_PURGE_F_QUEUE);
    finish(worker->client);
    free(values);
    return NULL;
}

static void produce(const job_t *job) {
    worker_t workers[CLIENTS_MAX];
    pthread_t threads[CLIENTS_MAX];
    for (long i = 0; i < job->clients; i++) {
        workers[i] = (worker_t){job, producer(job), 88172645463325252ull + (uint64_t)i * 1000003u};
        wait_partitions(workers[i].client, job);
    }
    for (long partition = 0; job->partitions > 1 && partition < job->partitions; partition++)
        send_record(workers[0].client, job, (int)partition, "first", 5, NULL, NULL);
    if (rd_kafka_flush(workers[0].client, FLUSH_MS)) fail("produce", "the first records were not acknowledged in 120 s");
    for (long i = 0; i < job->clients; i++)
        if (pthread_create(&threads[i], NULL, work, &workers[i])) fail("produce", "no thread");
    pause_s(job->warm);
    double began = now(), cpu = cpu_seconds(job->pid);
    long before = delivered;
    pause_s(job->seconds);
    long records = delivered - before;
    double took = now() - began;
    cpu = cpu_seconds(job->pid) - cpu;
    over = 1;
    for (long i = 0; i < job->clients; i++) pthread_join(threads[i], NULL);
    double bytes = (double)records * job->value;
    if (records == 0) fail("produce", "nothing was acknowledged within the measured time");
    printf("mb_per_s=%.3f records_per_s=%.0f seconds=%.3f server_cpu_s_per_gb=%.4f\n", bytes / 1e6 / took, records / took, took, cpu / (bytes / 1e9));
}

static void latency(const job_t *job) {
    rd_kafka_t *client = producer(job);
    wait_partitions(client, job);
    static char value[VALUE_MAX];
    fill(value, job->value, 0, 1);
    double *took = malloc(sizeof *took * job->sends);
    if (!took) fail("latency", "out of memory");
    long warm = job->sends / 10;
    for (long index = -warm; index < job->sends; index++) {
        long before = delivered;
        double began = now();
        send_record(client, job, 0, value, job->value, NULL, NULL);
        while (delivered == before && !failed) rd_kafka_poll(client, 1000);
        if (index >= 0) took[index] = now() - began;
    }
    finish(client);
    print_latencies(took, job->sends);
    free(took);
}

static double open_start, open_step;
static double *open_took;
static long open_warm;

static void on_due_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client, (void)opaque;
    note_failure(message);
    long number = (long)(intptr_t)message->_private;
    if (number >= open_warm) open_took[number - open_warm] = now() - (open_start + number * open_step);
}

static void *poll_client(void *client) {
    while (!over) rd_kafka_poll(client, 100);
    return NULL;
}

static void open_loop(const job_t *job) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "acks", "all");
    set(conf, "linger.ms", "0");
    set(conf, "max.in.flight", "5");
    set(conf, "queue.buffering.max.messages", "1000000");
    rd_kafka_conf_set_dr_msg_cb(conf, on_due_delivery);
    rd_kafka_t *client = open_client(RD_KAFKA_PRODUCER, job, conf);
    wait_partitions(client, job);
    static char value[VALUE_MAX];
    fill(value, job->value, 0, 1);
    long count = job->rate * job->seconds, total = job->rate * job->warm + count;
    open_warm = total - count;
    open_took = malloc(sizeof *open_took * count);
    if (!open_took) fail("open", "out of memory");
    pthread_t thread;
    if (pthread_create(&thread, NULL, poll_client, client)) fail("open", "no thread");
    open_start = now() + 0.1, open_step = 1.0 / job->rate;
    for (long number = 0; number < total; number++) {
        pause_s(open_start + number * open_step - now());
        send_record(client, job, (int)(number % job->partitions), value, job->value, NULL, (void *)(intptr_t)number);
    }
    if (rd_kafka_flush(client, FLUSH_MS)) fail("open", "not everything was acknowledged in 120 s");
    over = 1;
    pthread_join(thread, NULL);
    finish(client);
    print_latencies(open_took, count);
    free(open_took);
}

// What passes over a topic came to, without what each brought first: that came before its clock ran.
typedef struct { long bytes; double seconds, cpu_began; } sum_t;

static void consume_once(const job_t *job, rd_kafka_t *client, rd_kafka_queue_t *queue, sum_t *sum) {
    rd_kafka_topic_partition_list_t *all = rd_kafka_topic_partition_list_new((int)job->partitions);
    for (int at = 0; at < job->partitions; at++) rd_kafka_topic_partition_list_add(all, job->topic, at)->offset = 0;
    if (rd_kafka_assign(client, all)) fail("consume", "assign");
    rd_kafka_topic_partition_list_destroy(all);
    long bytes = 0, first = 0;
    double began = 0, last = now();
    static rd_kafka_message_t *messages[1000];
    while (bytes < job->bytes) {
        ssize_t some = rd_kafka_consume_batch_queue(queue, 200, messages, 1000);
        for (ssize_t at = 0; at < some; at++) {
            if (messages[at]->err) fail("consume", rd_kafka_message_errstr(messages[at]));
            bytes += messages[at]->len;
            rd_kafka_message_destroy(messages[at]);
        }
        if (some > 0) {
            last = now();
            if (began == 0) began = last, first = bytes;
            if (sum->cpu_began < 0) sum->cpu_began = cpu_seconds(job->pid);
        }
        if (now() - last > 60) fail("consume", "nothing came for 60 s");
    }
    if (bytes <= first || last <= began) fail("consume", "all came at once; ask for more");
    sum->bytes += bytes - first, sum->seconds += last - began;
}

static void consume(const job_t *job) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "group.id", "bench");
    set(conf, "enable.auto.commit", "false");
    set(conf, "fetch.message.max.bytes", "8388608");
    set(conf, "queued.max.messages.kbytes", "262144");
    rd_kafka_t *client = open_client(RD_KAFKA_CONSUMER, job, conf);
    rd_kafka_poll_set_consumer(client);
    rd_kafka_queue_t *queue = rd_kafka_queue_get_consumer(client);
    sum_t sum = {.cpu_began = -1};
    for (long pass = 0; pass < job->passes; pass++) consume_once(job, client, queue, &sum);
    double cpu = cpu_seconds(job->pid) - sum.cpu_began;
    printf("mb_per_s=%.3f seconds=%.3f server_cpu_s_per_gb=%.4f\n", sum.bytes / 1e6 / sum.seconds, sum.seconds, cpu / (sum.bytes / 1e9));
    rd_kafka_queue_destroy(queue);
    rd_kafka_consumer_close(client);
    rd_kafka_destroy(client);
}

int main(int count, char **words) {
    job_t job = {.partitions = 1, .seconds = 1, .value = 1024, .batch = 65536, .clients = 1, .sends = 1000, .rate = 1000, .bytes = 1, .passes = 1, .in_flight = 5,
                 .linger = "0"};
    const struct { const char *name; long *number, least, most; } numbers[] = {
        {"partitions", &job.partitions, 1, 100000}, {"seconds", &job.seconds, 1, 86400}, {"warm", &job.warm, 0, 86400},
        {"value", &job.value, 1, VALUE_MAX}, {"batch", &job.batch, 1, 1 << 20}, {"clients", &job.clients, 1, CLIENTS_MAX},
        {"sends", &job.sends, 1, 10000000}, {"rate", &job.rate, 1, 1000000}, {"bytes", &job.bytes, 1, 1l << 50}, {"passes", &job.passes, 1, 1000},
        {"keyed", &job.keyed, 0, 1}, {"idempotent", &job.idempotent, 0, 1}, {"lz4", &job.lz4, 0, 1},
        {"in_flight", &job.in_flight, 0, 1000000}, {"pid", &job.pid, 1, 1 << 30}};
    if (count < 3) fail("usage", "load BOOTSTRAP produce|latency|open|consume KEY=VALUE ...");
    prctl(PR_SET_TIMERSLACK, 1);  // timers fire when they are due, not up to 50 us later; threads inherit it
    job.bootstrap = words[1], job.pid = getpid();
    for (int at = 3; at < count; at++) {
        char *value = strchr(words[at], '=');
        if (!value) fail(words[at], "not KEY=VALUE");
        *value++ = 0;
        int known = 0;
        if (!strcmp(words[at], "topic")) job.topic = value, known = 1;
        if (!strcmp(words[at], "linger")) job.linger = value, known = 1;
        for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            if (strcmp(words[at], numbers[i].name)) continue;
            char *end;
            *numbers[i].number = strtol(value, &end, 10), known = 1;
            if (*end || *numbers[i].number < numbers[i].least || *numbers[i].number > numbers[i].most) fail(words[at], "not a number, or out of bounds");
        }
        if (!known) fail(words[at], "no such word");
    }
    if (!job.topic) fail("topic", "is missing");
    if (!strcmp(words[2], "produce")) produce(&job);
    else if (!strcmp(words[2], "latency")) latency(&job);
    else if (!strcmp(words[2], "open")) open_loop(&job);
    else if (!strcmp(words[2], "consume")) consume(&job);
    else fail(words[2], "no such command");
    return 0;
}
