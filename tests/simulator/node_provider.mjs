// A real OpenID provider, npm `oidc-provider`, on loopback over TLS. Ours: the login form, the users, what it is told on stdin.
//
//   node node_provider.mjs SETTINGS.json
//
// Prints one JSON line when it answers, and one for every JSON line on stdin: new settings, merged into the old. Ends with stdin,
// so that it never outlives the test that started it. node_provider.py writes the settings and documents them.
import crypto from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import https from 'node:https';
import readline from 'node:readline';
import { pathToFileURL } from 'node:url';

const settings = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const require = createRequire(`${settings.node_directory}/package.json`);
console.info = console.warn = () => {}; // its advice for production, on every start
const { default: Provider, interactionPolicy } = await import(pathToFileURL(require.resolve('oidc-provider')));

const html = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}</html>`;
const keys = new Map(); // kid -> private JWK
const current = {}; // what serves: { provider, callback }

const KINDS = {
  RS256: () => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
  PS256: () => crypto.generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ES256: () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  EdDSA: () => crypto.generateKeyPairSync('ed25519'),
};

function privateKeys() {
  return settings.keys.map(({ kid, alg, renewed }) => {
    if (!keys.has(kid) || renewed !== keys.get(kid).renewed) {
      keys.set(kid, { renewed, jwk: { ...KINDS[alg]().privateKey.export({ format: 'jwk' }), kid, alg, use: 'sig' } });
    }
    return keys.get(kid).jwk;
  });
}

function account(ctx, id) {
  const known = settings.accounts[id];
  return known && { accountId: id, claims: async () => ({ sub: id, ...known.claims }) };
}

async function everythingAskedFor(ctx) { // the user's consent is not what the tests are about: what is asked for is granted
  const { oidc } = ctx;
  const grant = new oidc.provider.Grant({ accountId: oidc.session.accountId, clientId: oidc.client.clientId });
  const scopes = oidc.params.scope ?? 'openid';
  grant.addOIDCScope(scopes);
  grant.addOIDCClaims([...new Set(Object.values(settings.claims).flat().filter(Boolean))]);
  for (const resource of Object.keys(oidc.resourceServers ?? {})) grant.addResourceScope(resource, scopes);
  await grant.save();
  return grant;
}

function configuration() {
  const { features } = settings;
  const policy = interactionPolicy.base();
  policy.get('consent').checks.remove('native_client_prompt');
  return {
    clients: settings.clients,
    jwks: { keys: privateKeys() },
    cookies: { keys: ['of-a-test'] },
    claims: settings.claims,
    scopes: ['openid', 'offline_access', ...settings.scopes],
    acrValues: settings.acr_values,
    conformIdTokenClaims: false, // the claims of granted scopes are in the ID token, as most providers do it
    findAccount: account,
    loadExistingGrant: everythingAskedFor,
    extraTokenClaims: (ctx, token) => ({ ...settings.access_token_claims, ...settings.accounts[token.accountId]?.access_token_claims }),
    interactions: { policy, url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    issueRefreshToken: async (ctx, client) => client.grantTypeAllowed('refresh_token'),
    rotateRefreshToken: true,
    pkce: { required: () => features.pkce === 'required' },
    clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt'],
    enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'], idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
    ttl: { ...Object.fromEntries(['Interaction', 'Session', 'Grant', 'RefreshToken', 'DeviceCode'].map((name) => [name, 3600])), ...settings.ttl },
    renderError: (ctx, out) => { ctx.type = 'html'; ctx.body = html('Error', `<pre>${Object.entries(out).map(([name, value]) => `${name}: ${escaped(value)}`).join('\n')}</pre>`); },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: features.client_credentials },
      introspection: { enabled: features.introspection, allowedPolicy: (ctx, client) => client.clientAuthMethod !== 'none' },
      revocation: { enabled: features.revocation },
      userinfo: { enabled: true },
      rpInitiatedLogout: { enabled: false },
      dPoP: { enabled: features.dpop, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => features.dpop_nonce },
      deviceFlow: {
        enabled: features.device,
        userCodeInputSource: (ctx, form, out, error) => { ctx.type = 'html'; ctx.body = html('Your code', `${error ? '<p>That code cannot be used.</p>' : ''}${form}<button type="submit" form="op.deviceInputForm">Continue</button>`); },
        userCodeConfirmSource: (ctx, form, client, info, code) => { ctx.type = 'html'; ctx.body = html('Is this your device?', `<p>${escaped(client.clientId)}: <code>${code}</code></p>${form}<button type="submit" form="op.deviceConfirmForm">Continue</button>`); },
        successSource: (ctx) => { ctx.type = 'html'; ctx.body = html('Logged in', '<p>Go back to your device.</p>'); },
      },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: () => true,
        defaultResource: (ctx, client, oneOf) => oneOf ?? settings.default_resource ?? undefined,
        getResourceServerInfo: (ctx, resource) => {
          const known = settings.resources[resource];
          if (!known) throw Object.assign(new Error('invalid_target'), { error: 'invalid_target', statusCode: 400, status: 400, expose: true });
          return { audience: resource, scope: [...new Set(['openid', 'offline_access', ...settings.scopes, ...(known.scope ?? '').split(' ')])].filter(Boolean).join(' '), accessTokenFormat: known.format ?? 'jwt', accessTokenTTL: known.ttl ?? 600, jwt: { sign: { alg: known.alg ?? settings.keys[0].alg } } };
        },
      },
    },
  };
}

const escaped = (text) => String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);

function build() {
  current.provider = new Provider(current.issuer, configuration());
  if (settings.server_errors) current.provider.on('server_error', (ctx, error) => process.stderr.write(`${error.stack}\n`));
  current.callback = current.provider.callback();
}

async function body(request) {
  const chunks = [];
  for await (const chunk of request) { chunks.push(chunk); if (chunks.length > 64) throw new Error('too long'); }
  return new URLSearchParams(Buffer.concat(chunks).toString());
}

async function interaction(request, response) {
  const page = (status, text) => { response.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' }); response.end(text); };
  const form = (note) => html('Log in', `${note}<form action="${escaped(request.url)}" method="post"><label>User name <input name="username" autofocus></label> <label>Password <input name="password" type="password"></label> <button type="submit">Log in</button></form>`);
  await current.provider.interactionDetails(request, response);
  if (request.method !== 'POST') { page(200, form('')); return; }
  const given = await body(request);
  const user = given.get('username') ?? '';
  const known = Object.hasOwn(settings.accounts, user) ? settings.accounts[user] : undefined;
  if (!known || known.password !== given.get('password')) { page(401, form('<p>Wrong user name or password.</p>')); return; }
  const result = known.refuses
    ? { error: 'access_denied', error_description: 'the user said no' }
    : { login: { accountId: user, remember: false, ...known.login } };
  await current.provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
}

const server = https.createServer({ cert: fs.readFileSync(settings.certificate), key: fs.readFileSync(settings.key) }, (request, response) => {
  const serve = request.url.startsWith('/interaction/') ? interaction : current.callback;
  Promise.resolve(serve(request, response)).catch((error) => {
    process.stderr.write(`${request.method} ${request.url.split('?')[0]}: ${error.name}\n`);
    if (!response.headersSent) response.writeHead(400, { 'content-type': 'text/plain' });
    response.end(error.name);
  });
});

server.listen(settings.port, '127.0.0.1', () => {
  current.issuer = `https://127.0.0.1:${server.address().port}`;
  build();
  process.stdout.write(`${JSON.stringify({ issuer: current.issuer })}\n`);
  readline.createInterface({ input: process.stdin }).on('line', (line) => {
    Object.assign(settings, JSON.parse(line));
    build();
    process.stdout.write('{"done":true}\n');
  }).on('close', () => process.exit(0));
});
