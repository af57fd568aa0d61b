// node-postgres through the steps of doc.go. Host, port, role and password come from the environment, as libpq reads it.
'use strict'
const { Client, Query } = require('pg')
const Cursor = require('pg-cursor')
const { from, to } = require('pg-copy-streams')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const { attempt, step, sleeping, digest, finish } = require('./steps.js')

const role = process.env.PGUSER
let c

async function connect(more) {
  const client = new Client({ ssl: { rejectUnauthorized: false }, ...more })
  client.on('error', (e) => console.log('failed: connection', e))
  await client.connect()
  return client
}

const one = async (text, values) => Object.values((await c.query(text, values)).rows[0])[0]
const count = async () => Number(await one('SELECT count(*) FROM t'))

// what runs in a transaction; it is over when this returns
async function within(f) {
  await c.query('BEGIN')
  try {
    return await f()
  } finally {
    await c.query('ROLLBACK')
  }
}

// a step in a session of its own, as what it does keeps the session on the primary
const apart = (name, f) => step(name, async () => {
  const ours = c
  c = await connect()
  try {
    return await f()
  } finally {
    await c.end()
    c = ours
  }
})

async function main() {
  c = await connect()
  console.log(`version: node-postgres ${require('pg/package.json').version}, Node.js ${process.version}`)
  await step('values', async () => (await c.query({
    text: "SELECT $1::int8, $2::text, $3::bytea, $4::numeric, $5::int[], $6::text, true AS t, '2024-02-29'::date::text AS d",
    values: [2n ** 40n, 'zażółć ☃', Buffer.from([0, 255]), '1.50', [1, 2, 3], null], rowMode: 'array',
  })).rows)
  await step('prepared', async () => {
    let sum = 0
    for (let i = 0; i < 50; i++) sum += (await c.query({ name: 'double', text: 'SELECT $1::int * 2 AS n', values: [i] })).rows[0].n
    return [sum, await one("SELECT count(*) FROM pg_prepared_statements WHERE name = 'double'")]
  })
  await step('unknown prepared', () => c.query('EXECUTE nobody'))
  await apart('cached plan', async () => {
    await c.query('CREATE TEMP TABLE plan (a int)')
    await c.query({ name: 'plan', text: 'SELECT * FROM plan' })
    await c.query('ALTER TABLE plan ADD b int')
    return attempt(() => c.query({ name: 'plan', text: 'SELECT * FROM plan' }))
  })
  await step('commit', async () => {
    await c.query('BEGIN')
    try {
      for (const i of [11, 12, 13]) await c.query("INSERT INTO t VALUES ($1, 'commit')", [i])
    } finally {
      await c.query('COMMIT')
    }
    return count()
  })
  await step('rollback', async () => [await within(() => attempt(() => c.query("INSERT INTO t VALUES (21, 'rollback')"))), await count()])
  await step('error in the middle', async () => {
    const seen = []
    await c.query('BEGIN')
    seen.push(await attempt(() => c.query("INSERT INTO t VALUES (31, 'middle')")))
    seen.push(await attempt(() => c.query('SELECT 1 / (id - id) FROM t')))
    seen.push(await attempt(() => c.query('SELECT $1::int', [1])))
    seen.push((await c.query('COMMIT')).command)
    return [...seen, await count()]
  })
  await step('savepoint', async () => {
    await c.query('BEGIN')
    const seen = [await attempt(() => c.query("INSERT INTO t VALUES (41, 'savepoint')"))]
    seen.push(await attempt(() => c.query('SAVEPOINT p')))
    seen.push(await attempt(() => c.query("INSERT INTO t VALUES (41, 'twice')")))
    seen.push(await attempt(() => c.query('ROLLBACK TO p')))
    seen.push((await c.query('COMMIT')).command)
    return [...seen, await count()]
  })
  await step('unique', () => c.query("INSERT INTO t VALUES (1, 'again')"))
  await apart('raised', async () => {
    try {
      await c.query("DO $$ BEGIN RAISE 'broken' USING ERRCODE = 'HW001', DETAIL = 'the detail', HINT = 'the hint'; END $$")
    } catch (e) {
      return [e.code, e.message, e.detail, e.hint]
    }
  })
  await step('syntax', async () => {
    try {
      await c.query('SELECT 1 FROMM t')
    } catch (e) {
      return [e.code, e.position]
    }
  })
  await step('no table', () => c.query('SELECT * FROM nowhere'))
  await apart('notice', async () => {
    const seen = []
    const note = (n) => seen.push([n.severity, n.message])
    c.on('notice', note)
    await c.query("DO $$ BEGIN RAISE NOTICE 'look here'; END $$")
    c.off('notice', note)
    return seen
  })
  await step('several statements', async () => (await c.query("SELECT 1 AS a; SELECT 'two' AS b")).map((r) => r.rows))
  await step('several statements, one wrong', () => c.query('SELECT 1; SELECT 1 / (id - id) FROM t; SELECT 2'))
  await step('copy in', async () => {
    const s = c.query(from('COPY copied (id, s) FROM STDIN'))
    await pipeline(Readable.from((function * () { for (let i = 0; i < 20000; i++) yield `${i}\trow ${i}\n` })()), s)
    return s.rowCount
  })
  for (const how of ['', '(FORMAT binary)']) {
    await step('copy out ' + how, async () => {
      const chunks = []
      for await (const b of c.query(to(`COPY (SELECT i, 'row ' || i FROM generate_series(1, 20000) i) TO STDOUT ${how}`))) chunks.push(b)
      return digest(chunks)
    })
  }
  await step('copy bad', () => pipeline(Readable.from(['no number\n']), c.query(from('COPY copied (id) FROM STDIN'))))
  await step('queue', async () => {
    const all = await Promise.all(Array.from({ length: 200 }, (_, i) => c.query('SELECT $1::int AS n', [i])))
    return all.reduce((sum, r) => sum + r.rows[0].n, 0)
  })
  await step('queue with an error', async () => {
    const sent = [c.query('SELECT 1 AS n'), c.query('SELECT 1 / (id - id) FROM t'), c.query('SELECT 3 AS n')]
    return (await Promise.allSettled(sent)).map((r) => r.reason?.code ?? r.value.rows[0].n)
  })
  await step('cursor', () => within(async () => {
    const cursor = c.query(new Cursor('SELECT i FROM generate_series(1, 10000) i'))
    let sum = 0
    for (let rows; (rows = await cursor.read(500)).length > 0;) for (const r of rows) sum += r.i
    await cursor.close()
    return sum
  }))
  await step('cursor left early', async () => {
    const cursor = c.query(new Cursor('SELECT i FROM generate_series(1, 10000) i'))
    const n = (await cursor.read(3)).length
    await cursor.close()
    return [n, await one('SELECT 1')]
  })
  await step('session', async () => {
    await c.query("SET work_mem = '5MB'")
    await c.query('SELECT pg_advisory_lock(42)')
    const held = await one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()")
    await c.query('SELECT pg_advisory_unlock(42)')
    return [await one('SHOW work_mem'), held]
  })
  await apart('temporary', async () => {
    await c.query('CREATE TEMP TABLE mine AS SELECT 7 AS n')
    return one('SELECT n FROM mine')
  })
  await step('notify', async () => {
    const other = await connect()
    try {
      const got = []
      const two = new Promise((resolve) => c.on('notification', (n) => {
        got.push([n.payload.length, n.processId === other.processID])
        if (got.length === 2) resolve()
      }))
      await c.query(`LISTEN ${role}`)
      await other.query(`NOTIFY ${role}, 'one'`)
      await other.query('SELECT pg_notify($1, $2)', [role, 'x'.repeat(7000)])
      await two
      await c.query('UNLISTEN *')
      return got
    } finally {
      await other.end()
    }
  })
  await step('locked', async () => {
    const other = await connect()
    try {
      return await within(async () => {
        await c.query('SELECT 1 FROM t WHERE id = 1 FOR UPDATE')
        return attempt(() => other.query('SELECT 1 FROM t WHERE id = 1 FOR UPDATE NOWAIT'))
      })
    } finally {
      await other.end()
    }
  })
  await step('big rows', async () => {
    const rows = (await c.query("SELECT i, repeat('x', 200) AS s FROM generate_series(1, 20000) i")).rows
    return [rows.length, rows.reduce((sum, r) => sum + r.i + r.s.length, 0)]
  })
  await step('big value', async () => (await one("SELECT repeat('y', 16 << 20)")).length)
  await step('big parameter', () => one('SELECT md5($1::bytea)', [Buffer.alloc(8 << 20)]))
  await step('timed out', async () => {
    await c.query('SET statement_timeout = 50')
    const code = await attempt(() => c.query('SELECT pg_sleep(60)'))
    await c.query('RESET statement_timeout')
    return code
  })
  await step('cancel', async () => {
    const query = new Query('SELECT pg_sleep(600)')
    const ended = attempt(() => new Promise((resolve, reject) => query.on('end', resolve).on('error', reject)))
    c.query(query)
    await sleeping()
    new Client({ ssl: false }).cancel(c, query) // node-postgres can send a cancel request in clear only
    return [await ended, await one('SELECT 1')]
  })
  await step('process', async () => await one('SELECT pg_backend_pid()') === c.processID)
  await step('wrong password', async () => (await connect({ password: 'wrong' })).end())
  await c.end()
  finish()
}

main().catch((e) => {
  console.log('failed:', e)
  process.exit(1)
})
