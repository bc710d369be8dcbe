// Everything the interoperability tests ask of a client, done by MQTT.js.
//
// Called as: mqttjs_client.js PORT VERSION(4|5) SCENARIO [SCHEME [CA [CERTIFICATE KEY]]]. Exit code 0 means
// the scenario held.
'use strict'

const assert = require('node:assert/strict')
const { randomBytes } = require('node:crypto')
const { once } = require('node:events')
const { readFileSync } = require('node:fs')
const mqtt = require('mqtt')

const port = Number(process.argv[2])
const version = Number(process.argv[3])
const scheme = process.argv[5] ?? 'mqtt'
const [ca, cert, key] = process.argv.slice(6).map((file) => readFileSync(file))
const PATIENCE_MS = 60000
const name = (stem) => stem + randomBytes(6).toString('hex')

async function peer({ clientId = name('js-'), persistent = false, will } = {}) {
  const options = {
    clientId, will, protocolVersion: version, clean: !persistent, reconnectPeriod: 0, keepalive: 60
  }
  if (version === 5 && persistent) options.properties = { sessionExpiryInterval: 600 }
  const place = { host: ca ? 'localhost' : '127.0.0.1', port, path: '/mqtt', ca, cert, key }
  const client = mqtt.connect(`${scheme}://${place.host}:${port}/mqtt`, { ...place, ...options })
  const waiting = []
  const messages = []
  client.on('message', (topic, payload, packet) => {
    const message = { topic, payload, packet }
    if (waiting.length > 0) waiting.shift()(message)
    else messages.push(message)
  })
  client.on('error', (error) => { throw error })
  const [connack] = await once(client, 'connect')
  return {
    client,
    sessionPresent: connack.sessionPresent,
    get: () => messages.length > 0
      ? Promise.resolve(messages.shift())
      : new Promise((resolve) => waiting.push(resolve)),
    publish: (topic, payload, qos, more = {}) => client.publishAsync(topic, payload, { qos, ...more }),
    subscribe: async (topic, qos) => {
      const granted = await client.subscribeAsync(topic, { qos })
      assert.equal(granted[0].qos, qos)
    },
    leave: () => client.endAsync(),
    kill: () => client.stream.destroy()
  }
}

// Whatever came until `sender` publishes a marker on `topic` was not wanted.
async function expectOnly(receiver, sender, topic) {
  await sender.publish(topic, 'marker', 1)
  assert.equal((await receiver.get()).payload.toString(), 'marker')
}

const scenarios = {
  async round_trips() {
    const [a, b, topic] = [await peer(), await peer(), name('js/')]
    await a.subscribe(topic, 2)
    for (const qos of [0, 1, 2]) {
      await b.publish(topic, `at ${qos}`, qos)
      const got = await a.get()
      assert.equal(got.payload.toString(), `at ${qos}`)
      assert.equal(got.packet.qos, qos)
    }
    await expectOnly(a, b, topic)
  },

  async retained() {
    const [a, b, c, topic] = [await peer(), await peer(), await peer(), name('js/')]
    await a.publish(topic, 'old', 1, { retain: true })
    await a.publish(topic, 'kept', 1, { retain: true })
    await b.subscribe(topic, 1)
    const got = await b.get()
    assert.ok(got.packet.retain)
    assert.equal(got.payload.toString(), 'kept')
    await a.publish(topic, '', 1, { retain: true })
    assert.equal((await b.get()).payload.length, 0)
    await c.subscribe(topic, 1)
    await expectOnly(c, a, topic)
  },

  async will() {
    const [watcher, topic] = [await peer(), name('js/')]
    const will = { topic, payload: 'gone', qos: 1 }
    await watcher.subscribe(topic, 1)
    ;(await peer({ will })).kill()
    assert.equal((await watcher.get()).payload.toString(), 'gone')
    await (await peer({ will })).leave()
    await expectOnly(watcher, await peer(), topic)
  },

  async resume() {
    const [sender, clientId, topic] = [await peer(), name('js-'), name('js/')]
    const first = await peer({ clientId, persistent: true })
    assert.equal(first.sessionPresent, false)
    await first.subscribe(topic, 2)
    await first.leave()
    for (let n = 0; n < 20; n++) await sender.publish(topic, String(n), 1 + n % 2)
    const again = await peer({ clientId, persistent: true })
    assert.equal(again.sessionPresent, true)
    // Order is owed per QoS only.
    const got = { 1: [], 2: [] }
    for (let n = 0; n < 20; n++) {
      const { payload, packet } = await again.get()
      got[packet.qos].push(Number(payload))
    }
    for (const qos of [1, 2]) {
      assert.deepEqual(got[qos], Array.from({ length: 10 }, (_, n) => 2 * n + qos - 1))
    }
    await expectOnly(again, sender, topic)
  },

  async shared() {
    const [sender, topic] = [await peer(), name('js/')]
    const members = [await peer(), await peer(), await peer(), await peer()]
    for (const member of members) {
      await member.subscribe('$share/g/' + topic, 1)
      await member.subscribe(topic + '/end', 1)
    }
    for (let n = 0; n < 100; n++) await sender.publish(topic, String(n), 1)
    await sender.publish(topic + '/end', 'end', 1)
    const seen = []
    for (const member of members) {
      for (let got = await member.get(); got.payload.toString() !== 'end'; got = await member.get()) {
        seen.push(Number(got.payload))
      }
    }
    assert.deepEqual(seen.sort((x, y) => x - y), [...Array(100).keys()])
  },

  async properties() {
    const [a, b, topic] = [await peer(), await peer(), name('js/')]
    await a.subscribe(topic, 1)
    await b.publish(topic, 'with all', 1, {
      properties: {
        payloadFormatIndicator: true,
        messageExpiryInterval: 600,
        contentType: 'text/plain',
        responseTopic: 'answer/here',
        correlationData: Buffer.from([0, 255, 128]),
        userProperties: { b: ['1', '3'], a: '2' }
      }
    })
    const got = (await a.get()).packet.properties
    assert.equal(got.payloadFormatIndicator, true)
    assert.ok(got.messageExpiryInterval >= 590 && got.messageExpiryInterval <= 600)
    assert.equal(got.contentType, 'text/plain')
    assert.equal(got.responseTopic, 'answer/here')
    assert.deepEqual([...got.correlationData], [0, 255, 128])
    assert.deepEqual({ ...got.userProperties }, { b: ['1', '3'], a: '2' })
  },

  async large() {
    const [a, b, topic] = [await peer(), await peer(), name('js/')]
    const payload = Buffer.alloc(10 * 1024 * 1024, 'abcdefg')
    await a.subscribe(topic, 1)
    await b.publish(topic, payload, 1)
    assert.ok((await a.get()).payload.equals(payload))
  },

  async thousand() {
    const [a, b] = [await peer(), await peer()]
    for (const qos of [0, 1, 2]) {
      const topic = name('js/')
      await a.subscribe(topic, qos)
      const sent = []
      for (let n = 0; n < 1000; n++) sent.push(b.publish(topic, String(n), qos))
      for (let n = 0; n < 1000; n++) assert.equal(Number((await a.get()).payload), n)
      await Promise.all(sent)
      await expectOnly(a, b, topic)
    }
  }
}

setTimeout(() => { throw new Error('out of patience') }, PATIENCE_MS).unref()
scenarios[process.argv[4]]().then(
  () => process.exit(0),
  (error) => { console.error(error); process.exit(1) }
)
