// What both clients share: steps are said as `name: result`, a statement that is to be cancelled as `sleeping`.
'use strict'
const crypto = require('node:crypto')
const readline = require('node:readline')

const lines = readline.createInterface({ input: process.stdin })

// result of a thing that may fail with an SQLSTATE
async function attempt(f) {
  try {
    await f()
    return 'ok'
  } catch (e) {
    if (!/^[0-9A-Z]{5}$/.test(e.code)) throw e
    return e.code
  }
}

async function step(name, f) {
  let result
  try {
    result = JSON.stringify(await f())
  } catch (e) {
    // Anything without an SQLSTATE is a defect here or in the driver: the test fails on that word.
    result = /^[0-9A-Z]{5}$/.test(e.code) ? 'error ' + e.code : 'failed ' + (e.stack || e)
  }
  console.log(`${name}: ${String(result).replaceAll('\n', ' ')}`)
}

// resolves once the test has seen a server show the statement asleep
function sleeping() {
  console.log('sleeping')
  return new Promise((resolve) => lines.once('line', resolve))
}

function digest(chunks) {
  const all = Buffer.concat(chunks)
  return `${all.length} bytes ${crypto.createHash('sha256').update(all).digest('hex').slice(0, 16)}`
}

module.exports = { attempt, step, sleeping, digest, finish: () => lines.close() }
