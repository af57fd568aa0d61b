// postgres.js through the steps of doc.go. It pipelines whatever is asked of it at once.
'use strict'
const fs = require('node:fs')
const path = require('node:path')
const postgres = require('postgres')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const { attempt, step, sleeping, digest, finish } = require('./steps.js')

const role = process.env.PGUSER
const notices = []
const connect = (more) => postgres({ ssl: { rejectUnauthorized: false }, max: 1, onnotice: (n) => notices.push([n.severity, n.message]), ...more })
let sql = connect()
const count = async () => Number((await sql`SELECT count(*) FROM t`)[0].count)

// a step in a session of its own, as what it does keeps the session on the primary
const apart = (name, f) => step(name, async () => {
  const ours = sql
  sql = connect()
  try {
    return await f()
  } finally {
    await sql.end()
    sql = ours
  }
})

async function main() {
  await sql`SELECT 1`
  console.log(`version: postgres.js ${JSON.parse(fs.readFileSync(path.join(path.dirname(require.resolve('postgres')), '..', '..', 'package.json'))).version}, Node.js ${process.version}`)
  await step('values', () => sql`SELECT ${2n ** 40n}::int8 AS a, ${'zażółć ☃'}::text AS b, ${Buffer.from([0, 255])}::bytea AS c, ${'1.50'}::numeric AS d,
    ${[1, 2, 3]}::int[] AS e, ${null}::text AS f, true AS g, '2024-02-29'::date::text AS h`)
  await step('prepared', async () => {
    let sum = 0
    for (let i = 0; i < 50; i++) sum += (await sql`SELECT ${i}::int * 2 AS n`)[0].n
    return [sum, (await sql`SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%* 2 AS n'`)[0].count]
  })
  await apart('unknown prepared', () => sql`EXECUTE nobody`)
  await apart('cached plan', async () => {
    await sql`CREATE TEMP TABLE plan (a int)`
    await sql`SELECT * FROM plan`
    await sql`ALTER TABLE plan ADD b int`
    return attempt(() => sql`SELECT * FROM plan`)
  })
  await step('commit', async () => {
    await sql.begin(async (tx) => {
      for (const i of [11, 12, 13]) await tx`INSERT INTO t VALUES (${i}, 'commit')`
    })
    return count()
  })
  await step('rollback', async () => {
    const why = new Error('thought better of it')
    try {
      await sql.begin(async (tx) => {
        await tx`INSERT INTO t VALUES (21, 'rollback')`
        throw why
      })
    } catch (e) {
      if (e !== why) throw e
    }
    return count()
  })
  await step('error in the middle', async () => {
    const seen = []
    seen.push(await attempt(() => sql.begin(async (tx) => {
      seen.push(await attempt(() => tx`INSERT INTO t VALUES (31, 'middle')`))
      seen.push(await attempt(() => tx`SELECT 1 / (id - id) FROM t`))
      seen.push(await attempt(() => tx`SELECT ${1}::int`))
    })))
    return [...seen, await count()]
  })
  await step('savepoint', async () => {
    const seen = []
    await sql.begin(async (tx) => {
      await tx`INSERT INTO t VALUES (41, 'savepoint')`
      seen.push(await attempt(() => tx.savepoint((sp) => sp`INSERT INTO t VALUES (41, 'twice')`)))
    })
    return [...seen, await count()]
  })
  await step('unique', () => sql`INSERT INTO t VALUES (1, 'again')`)
  await apart('raised', async () => {
    try {
      await sql.unsafe("DO $$ BEGIN RAISE 'broken' USING ERRCODE = 'HW001', DETAIL = 'the detail', HINT = 'the hint'; END $$")
    } catch (e) {
      return [e.code, e.message, e.detail, e.hint]
    }
  })
  await step('syntax', () => sql`SELECT 1 FROMM t`)
  await step('no table', () => sql`SELECT * FROM nowhere`)
  await apart('notice', async () => {
    await sql.unsafe("DO $$ BEGIN RAISE NOTICE 'look here'; END $$")
    return notices
  })
  await step('several statements', () => sql`SELECT 1 AS a; SELECT 'two' AS b`.simple())
  await step('copy in', async () => {
    const s = await sql`COPY copied (id, s) FROM STDIN`.writable()
    await pipeline(Readable.from((function * () { for (let i = 0; i < 20000; i++) yield `${i}\trow ${i}\n` })()), s)
    return (await sql`SELECT count(*) FROM copied`)[0].count
  })
  await step('copy out', async () => {
    const chunks = []
    for await (const b of await sql`COPY (SELECT i, 'row ' || i FROM generate_series(1, 20000) i) TO STDOUT`.readable()) chunks.push(b)
    return digest(chunks)
  })
  await step('pipeline', async () => {
    const all = await Promise.all(Array.from({ length: 200 }, (_, i) => sql`SELECT ${i}::int AS n`))
    return all.reduce((sum, rows) => sum + rows[0].n, 0)
  })
  await step('pipeline writes', async () => {
    await Promise.all(Array.from({ length: 100 }, (_, i) => sql`INSERT INTO t VALUES (${100 + i}, 'pipeline')`))
    return count()
  })
  await step('pipeline with errors', async () => {
    const sent = Array.from({ length: 20 }, (_, i) => i % 3 === 1 ? sql`SELECT 1 / (id - id) FROM t` : sql`SELECT ${i}::int AS n`)
    return (await Promise.allSettled(sent)).map((r) => r.reason?.code ?? r.value[0].n)
  })
  await step('pipeline in a transaction', () => sql.begin((tx) => [tx`SELECT 1 AS n`, tx`SELECT 2 AS n`]))
  await step('cursor', async () => {
    let sum = 0
    for await (const rows of sql`SELECT i FROM generate_series(1, 10000) i`.cursor(500)) for (const r of rows) sum += r.i
    return sum
  })
  await step('each row', async () => {
    let sum = 0
    await sql`SELECT i FROM generate_series(1, 1000) i`.forEach((r) => { sum += r.i })
    return sum
  })
  await step('session', async () => {
    await sql`SET work_mem = '5MB'`
    await sql`SELECT pg_advisory_lock(42)`
    const held = (await sql`SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()`)[0].count
    await sql`SELECT pg_advisory_unlock(42)`
    return [(await sql`SHOW work_mem`)[0].work_mem, held]
  })
  await apart('temporary', async () => {
    await sql`CREATE TEMP TABLE mine AS SELECT 7 AS n`
    return sql`SELECT n FROM mine`
  })
  await step('notify', async () => {
    const got = []
    let enough
    const two = new Promise((resolve) => { enough = resolve })
    await sql.listen(role, (payload) => {
      got.push(payload.length)
      if (got.length === 2) enough()
    })
    await sql.notify(role, 'one')
    await sql.notify(role, 'x'.repeat(7000))
    await two
    return got
  })
  await step('big rows', async () => {
    const rows = await sql`SELECT i, repeat('x', 200) AS s FROM generate_series(1, 20000) i`
    return [rows.length, rows.reduce((sum, r) => sum + r.i + r.s.length, 0)]
  })
  await step('big value', async () => (await sql`SELECT repeat('y', 16 << 20) AS s`)[0].s.length)
  await step('big parameter', () => sql`SELECT md5(${Buffer.alloc(8 << 20)}::bytea)`)
  await step('timed out', async () => {
    await sql`SET statement_timeout = 50`
    const code = await attempt(() => sql`SELECT pg_sleep(60)`)
    await sql`RESET statement_timeout`
    return code
  })
  await step('cancel', async () => {
    const query = sql`SELECT pg_sleep(600)`
    const ended = attempt(() => query)
    await sleeping()
    query.cancel()
    return [await ended, (await sql`SELECT 1 AS n`)[0].n]
  })
  await step('wrong password', () => connect({ password: 'wrong' })`SELECT 1`)
  await sql.end()
  finish()
}

main().catch((e) => {
  console.log('failed:', e)
  process.exit(1)
})
