// kafkajs behind the line protocol of clients/python/remote_driver.py.
//
// kafkajs has no way to read a partition outside a group, so `consume` joins a group of its own and seeks. Its answer to offsets for a
// time after the last record is the end of the partition. Codecs other than gzip are plug-ins: kafkajs-snappy, and lz4js and zstd-codec
// put in here.
'use strict'
const readline = require('readline')
const kafkajs = require('kafkajs')
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = kafkajs
const lz4 = require('lz4js')
const { ZstdCodec } = require('zstd-codec')

process.env.KAFKAJS_NO_PARTITIONER_WARNING = '1'
const WAIT_MS = 60_000
const CODECS = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP, snappy: CompressionTypes.Snappy, lz4: CompressionTypes.LZ4, zstd: CompressionTypes.ZSTD }
const kafka = new Kafka({ clientId: 'checks', brokers: [process.env.BOOTSTRAP], logLevel: logLevel.NOTHING, retry: { retries: 8 } })
const members = new Map()
const lives = new Map()
let groups = 0

const encode = (bytes) => (bytes === null || bytes === undefined ? null : Buffer.from(bytes).toString('base64'))
const decode = (text) => (text === null ? null : Buffer.from(text, 'base64'))

function seen(partition, message) {
  const headers = []
  for (const [name, held] of Object.entries(message.headers || {})) {
    for (const value of Array.isArray(held) ? held : [held]) headers.push([name, encode(value)])
  }
  return [partition, Number(message.offset), encode(message.key), encode(message.value), headers, Number(message.timestamp)]
}

// lz4js's own frames have blocks that depend on one another, which Kafka refuses ("Dependent block stream is unsupported"): so only its
// block compressor is used, in a frame of independent 64 KiB blocks.
function lz4Frame(bytes) {
  const parts = [Buffer.from([0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82])]
  for (let from = 0; from < bytes.length; from += 65_536) {
    const block = Uint8Array.prototype.slice.call(bytes, from, from + 65_536)
    const room = new Uint8Array(lz4.compressBound(block.length))
    const size = lz4.compressBlock(block, room, 0, block.length, new Uint32Array(65_536))
    const head = Buffer.alloc(4)
    const plain = size === 0 || size >= block.length
    head.writeUInt32LE(plain ? (block.length | 0x80000000) >>> 0 : size)
    parts.push(head, Buffer.from(plain ? block : room.subarray(0, size)))
  }
  parts.push(Buffer.alloc(4))
  return Buffer.concat(parts)
}

function outgoing([partition, key, value, headers, timestamp]) {
  const message = { key: decode(key), value: decode(value) }
  if (partition !== null) message.partition = partition
  if (timestamp !== null) message.timestamp = String(timestamp)
  if (headers.length > 0) {
    message.headers = {}
    for (const [name, held] of headers) {
      const before = message.headers[name]
      message.headers[name] = before === undefined ? decode(held) : [].concat(before, decode(held))
    }
  }
  return message
}

async function withAdmin(work) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

async function liveOpen({ live, codec, idempotent }) {
  const producer = kafka.producer({ idempotent, maxInFlightRequests: 1, createPartitioner: kafkajs.Partitioners.DefaultPartitioner })
  await producer.connect()
  lives.set(live, { producer, codec })
  return null
}

async function liveSend({ live, topic, records }) {
  const { producer, codec } = lives.get(live)
  const places = new Array(records.length)
  // Keyed records go in several sends, so that order and sequences across sends are judged too. For those kafkajs does not tell which
  // record went where.
  const step = records.length > 0 && records[0][0] === null ? 100 : records.length
  for (let from = 0; from < records.length; from += step) {
    const some = records.slice(from, from + step)
    const answers = await producer.send({ topic, acks: -1, compression: CODECS[codec], messages: some.map(outgoing) })
    const next = new Map(answers.map((one) => [one.partition, Number(one.baseOffset)]))
    some.forEach(([partition], index) => {
      if (partition === null) {
        places[from + index] = [null, null]
        return
      }
      places[from + index] = [partition, next.get(partition)]
      next.set(partition, next.get(partition) + 1)
    })
  }
  return places
}

async function liveClose({ live }) {
  await lives.get(live).producer.disconnect()
  lives.delete(live)
  return null
}

// Runs a consumer until `count` records passed `accept`, then calls `after` and disconnects.
async function collect(consumer, topic, count, accept, started, after) {
  const got = []
  await consumer.connect()
  try {
    await consumer.subscribe({ topic, fromBeginning: true })
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${got.length} of ${count} records came in ${WAIT_MS} ms`)), WAIT_MS)
      consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
      const eachMessage = async ({ partition, message }) => {
        if (got.length === count || !accept(partition, Number(message.offset))) return
        got.push(seen(partition, message))
        if (got.length === count) {
          clearTimeout(timer)
          resolve()
        }
      }
      consumer.run({ autoCommit: false, eachMessage }).then(started, reject)
    })
    await after(got)
  } finally {
    await consumer.disconnect()
  }
  return got
}

function consume({ topic, starts, count }) {
  const next = new Map(starts)
  const consumer = kafka.consumer({ groupId: `none-${process.pid}-${Date.now()}-${groups++}` })
  const accept = (partition, offset) => {
    if (!next.has(partition) || offset < next.get(partition)) return false
    next.set(partition, offset + 1)
    return true
  }
  const started = () => starts.forEach(([partition, offset]) => consumer.seek({ topic, partition, offset: String(offset) }))
  return collect(consumer, topic, count, accept, started, async () => {})
}

function take({ topic, group, count }) {
  const consumer = kafka.consumer({ groupId: group })
  const commit = async (got) => {
    const ends = new Map(got.map(([partition, offset]) => [partition, offset + 1]))
    await consumer.commitOffsets([...ends].map(([partition, offset]) => ({ topic, partition, offset: String(offset) })))
    const [stored] = await withAdmin((admin) => admin.fetchOffsets({ groupId: group, topics: [topic] }))
    for (const [partition, offset] of ends) {
      const held = stored.partitions.find((one) => one.partition === partition)
      if (!held || Number(held.offset) !== offset) throw new Error(`partition ${partition}: committed ${offset}, the group holds ${held && held.offset}`)
    }
  }
  return collect(consumer, topic, count, () => true, () => {}, commit)
}

async function memberOpen({ member, topic, group }) {
  const consumer = kafka.consumer({ groupId: group, heartbeatInterval: 500, sessionTimeout: 10_000, rebalanceTimeout: 10_000 })
  const state = { consumer, got: [], held: [], failure: null }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => { state.held = payload.memberAssignment[topic] || [] })
  consumer.on(consumer.events.REBALANCING, () => { state.held = [] })
  // Where the broker is away for a while, kafkajs starts the consumer again by itself.
  consumer.on(consumer.events.CRASH, ({ payload }) => { if (!payload.restart) state.failure = payload.error })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  members.set(member, state)
  const eachMessage = async ({ partition, message }) => { state.got.push(seen(partition, message)) }
  consumer.run({ eachMessage }).catch((error) => { state.failure = error })
  return null
}

function alive(member) {
  const state = members.get(member)
  if (state.failure) throw state.failure
  return state
}

const OPERATIONS = {
  hello: async () => ({ name: 'kafkajs', version: require('kafkajs/package.json').version, codecs: Object.keys(CODECS), none_is_end: true, counts_optional: true }),
  create: ({ topic, partitions }) => withAdmin(async (admin) => {
    // Without a count the request says -1 for both, in a version below 4: the broker's defaults.
    const counts = partitions === null ? {} : { numPartitions: partitions, replicationFactor: 1 }
    const made = await admin.createTopics({ topics: [{ topic, ...counts }], waitForLeaders: true })
    if (!made) throw new Error(`${topic} was not created`)
    return null
  }),
  partitions: ({ topic }) => withAdmin(async (admin) => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length),
  live_open: liveOpen,
  live_send: liveSend,
  live_close: liveClose,
  consume,
  take,
  times: ({ topic, timestamp }) => withAdmin(async (admin) => {
    const found = await admin.fetchTopicOffsetsByTimestamp(topic, timestamp)
    return found.map((one) => [one.partition, Number(one.offset)]).sort((a, b) => a[0] - b[0])
  }),
  member_open: memberOpen,
  member_assigned: async ({ member }) => alive(member).held,
  member_drain: async ({ member }) => alive(member).got.splice(0),
  member_leave: async ({ member }) => { await members.get(member).consumer.disconnect(); return null },
}

async function main() {
  const zstd = await new Promise((resolve) => ZstdCodec.run((loaded) => resolve(new loaded.Streaming())))
  CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
  CompressionCodecs[CompressionTypes.LZ4] = () => ({
    compress: async (encoder) => lz4Frame(encoder.buffer),
    decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
  })
  CompressionCodecs[CompressionTypes.ZSTD] = () => ({
    compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
    decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
  })
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line)
    let answer
    try {
      answer = { ok: await OPERATIONS[request.op](request) }
    } catch (error) {
      answer = { error: `${error.name}: ${error.message}` }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
  process.exit(0)
}

main()
