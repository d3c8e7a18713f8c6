// node server.mjs, then: KEYSTORE, REPORT_URL, REPORT_TOKEN, REPLICA and PORT say what differs from the values below.
import { createServer } from 'node:http'
import { hostname } from 'node:os'
import { report, verifier } from './hookturn.mjs'

const env = { KEYSTORE: '/var/lib/hookturn-keys/billing/secrets.json', REPORT_URL: 'http://127.0.0.1:8780/report/billing', ...process.env }
const verify = verifier(env.KEYSTORE)

createServer(async (request, response) => {
  try {
    const chunks = []
    for await (const chunk of request) chunks.push(chunk)
    const raw = Buffer.concat(chunks) // the bytes as they came: parsed and printed again, they would verify no more
    const kid = verify(request.headers, raw)
    const status = kid === null ? 401 : handle(raw)
    response.writeHead(status).end()
    if (kid !== null) report(env.REPORT_URL, env.REPORT_TOKEN, { kid, raw, status, replica: env.REPLICA ?? hostname() })
  } catch {
    response.destroy() // the sender went away in the middle
  }
}).listen(Number(env.PORT ?? 9000), '127.0.0.1')

// Verified first, parsed second. DialNexa sends no delivery id: drop doubles by call id and event, and work after the answer.
function handle(raw) {
  try {
    JSON.parse(raw)
    return 200
  } catch {
    return 400
  }
}
