// A consumer's side of hookturn, for Node 18 or later: no dependencies. docs/consumers.md has the contract.
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'

const STATES = ['current', 'pending', 'previous']
const HEADERS = ['x-nexa-signature', 'x-dialnexa-signature']

// Answers a function (headers, raw body) -> the kid of the key that signed it, or null: answer 401 then, and say no more.
export function verifier(keystore) {
  let lastGood = []
  // Read for every delivery: it is small, and so a new key counts from its first instant.
  const keys = () => {
    try {
      const file = JSON.parse(readFileSync(keystore, 'utf8'))
      const kids = new Set(file.keys.map((key) => key.kid))
      if (file.version !== 1 || kids.size !== file.keys.length) throw new Error('not a keystore that this code knows')
      lastGood = file.keys
    } catch (error) {
      console.error(`${keystore}: ${error.name}; the last good keys stay`)
    }
    const open = (key) => !key.accept_until || Date.parse(key.accept_until) > Date.now()
    return lastGood.filter((key) => STATES.includes(key.state) && open(key))
  }
  return (headers, raw) => {
    const given = HEADERS.map((name) => headers[name]).filter((value) => typeof value === 'string')
    const macs = given.map((value) => value.replace(/^sha256=/i, '')).filter((hex) => /^[0-9a-f]{64}$/i.test(hex))
    let signer = null
    for (const key of keys()) {
      const mac = createHmac('sha256', key.secret).update(raw).digest()
      if (macs.some((hex) => timingSafeEqual(mac, Buffer.from(hex, 'hex')))) signer = key.kid
    }
    return signer
  }
}

// Tells hookturn what this replica verified and answered. After the answer; a report that is lost is no harm.
// `about`: what a person may want to know of the delivery, { event, user_agent, address }.
export function report(url, token, { kid, raw, status, replica, about }) {
  const body = JSON.stringify({ kid, body_sha256: createHash('sha256').update(raw).digest('hex'), status, replica, ...about })
  const headers = { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) }
  return fetch(url, { method: 'POST', headers, body, signal: AbortSignal.timeout(2000) }).catch(() => {})
}
