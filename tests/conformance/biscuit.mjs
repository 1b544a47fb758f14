// What another implementation of Biscuit does when it is asked: a JSON list of questions on standard input, one of answers on
// the last line of standard output (the module greets on the first). Bytes travel as hex. The only argument is the path of
// @biscuit-auth/biscuit-wasm's module.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { Biscuit, AuthorizerBuilder, PrivateKey, PublicKey, SignatureAlgorithm, ThirdPartyRequest } = await import(
  pathToFileURL(process.argv[2])
);

const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (data) => Buffer.from(data).toString("hex");
const algorithm = { ed25519: SignatureAlgorithm.Ed25519, secp256r1: SignatureAlgorithm.Secp256r1 };

// Keys are "ed25519/<hex>" or "secp256r1/<hex>", private and public ones alike.
const publicKey = (text) => PublicKey.fromString(text.split("/")[1], algorithm[text.split("/")[0]]);
const privateKey = (text) => PrivateKey.fromBytes(bytes(text.split("/")[1]), algorithm[text.split("/")[0]]);

const block = (code) => {
  const builder = Biscuit.block_builder();
  builder.addCode(code);
  return builder;
};

// Building an authorizer runs its rules within a millisecond, a limit that cannot be set: a busy machine needs another attempt.
const inTime = (action) => {
  for (let attempt = 0; attempt < 1000; attempt++) {
    try {
      return action();
    } catch (error) {
      if (error?.RunLimit === undefined) throw error;
    }
  }
  throw { RunLimit: "Timeout" };
};

const actions = {
  read: (token) => ({
    blocks: token.countBlocks(),
    ids: token.getRevocationIdentifiers(),
    token: hex(token.toBytes()),
  }),
  attenuate: (token, { code }) => ({ token: hex(token.appendBlock(block(code)).toBytes()) }),
  seal: (token) => ({ token: hex(token.sealToken().toBytes()) }),
  request: (token) => ({ request: hex(token.getThirdPartyRequest().toBytes()) }),
  vouch: (token, { code, secret, key }) => ({
    token: hex(
      token
        .appendThirdPartyBlock(publicKey(key), token.getThirdPartyRequest().createBlock(privateKey(secret), block(code)))
        .toBytes(),
    ),
  }),
  authorize: (token, { code }) => {
    const limits = { max_facts: 1000, max_iterations: 100, max_time_micro: 5_000_000 };
    return inTime(() => {
      const builder = new AuthorizerBuilder();
      builder.addCode(code);
      return { policy: builder.buildAuthenticated(token).authorizeWithLimits(limits) };
    });
  },
};

const answer = (question) => {
  if (question.do === "mint") {
    const builder = Biscuit.builder();
    builder.addCode(question.code);
    return { token: hex(builder.build(privateKey(question.secret)).toBytes()) };
  }
  if (question.do === "answer") {
    const request = ThirdPartyRequest.fromBytes(bytes(question.request));
    return { answer: hex(request.createBlock(privateKey(question.secret), block(question.code)).toBytes()) };
  }
  return actions[question.do](Biscuit.fromBytes(bytes(question.token), publicKey(question.root)), question);
};

const answers = JSON.parse(readFileSync(0, "utf8")).map((question) => {
  try {
    return answer(question);
  } catch (error) {
    return { error: typeof error === "string" ? error : JSON.stringify(error) ?? String(error) };
  }
});
process.stdout.write(`\n${JSON.stringify(answers)}\n`);
