// RFC 7662 introspection by node-oidc-provider with its in-memory adapter. Prints its port and a token that is active.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const require = createRequire(pathToFileURL(process.argv[2] + '/'));
const { Provider } = await import(pathToFileURL(require.resolve('oidc-provider')).href);
console.warn = console.info = () => {};
const client = {
  client_id: 'bench', client_secret: 'bench-secret', grant_types: ['client_credentials'], redirect_uris: [],
  response_types: [],
};
const provider = new Provider('http://127.0.0.1', {
  clients: [client],
  features: { introspection: { enabled: true }, clientCredentials: { enabled: true }, devInteractions: { enabled: false } },
});
const server = provider.listen(0, '127.0.0.1', async () => {
  const { port } = server.address();
  const answer = await fetch(`http://127.0.0.1:${port}/token`, {
    method: 'POST',
    headers: {
      authorization: 'Basic ' + Buffer.from('bench:bench-secret').toString('base64'),
      'content-type': 'application/x-www-form-urlencoded',
    },
    body: 'grant_type=client_credentials',
  });
  console.log(JSON.stringify({ port, token: (await answer.json()).access_token }));
});
