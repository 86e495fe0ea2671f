// The dev broker, and messages to it by hand: what no service of ours would send.

import { spawn } from "node:child_process";
import { connect } from "node:http2";
import { createInterface } from "node:readline";

/** The number of a success, as it stands in an answer. */
const OK = Buffer.from([0xa0, 0x9c, 0x01]);

const varint = (n) => n < 128 ? [n] : [(n & 127) | 128, ...varint(n >>> 7)];
/** Fields of a protobuf message: numbers, texts, and messages in it. */
const encode = (fields) => Buffer.concat(Object.entries(fields).map(([number, value]) => {
  if (typeof value === "number") return Buffer.from([...varint(number << 3), ...varint(value)]);
  const bytes = Buffer.isBuffer(value) ? value : Buffer.from(value);
  return Buffer.concat([Buffer.from([...varint((number << 3) | 2), ...varint(bytes.length)]), bytes]);
}));

export class Broker {
  #process;
  address;

  /** With groups that are not as the broker makes them: `NAME:retry=99`. */
  static async start(program, groups = []) {
    const broker = new Broker();
    const args = ["--listen", "127.0.0.1:0", ...groups.flatMap((group) => ["--group", group])];
    broker.#process = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
    for await (const line of createInterface({ input: broker.#process.stdout })) {
      broker.address = /^listening on (.*)$/.exec(line)[1];
      return broker;
    }
    throw new Error("the dev broker does not start");
  }

  stop() {
    this.#process?.kill("SIGKILL");
  }

  /** SendMessage of one NORMAL message whose body is this text. */
  async publish(topic, id, body) {
    const born = encode({ 1: Math.floor(Date.now() / 1000) });
    const system = encode({ 3: id, 5: 1, 6: 1, 7: born });
    const request = encode({ 1: encode({ 1: encode({ 2: topic }), 3: system, 4: body }) });
    const session = connect(`http://${this.address}`);
    try {
      const stream = session.request({
        ":method": "POST", ":path": "/apache.rocketmq.v2.MessagingService/SendMessage",
        "content-type": "application/grpc", te: "trailers", "x-mq-client-id": "browser-test",
      });
      const head = Buffer.alloc(5);
      head.writeUInt32BE(request.length, 1);
      stream.end(Buffer.concat([head, request]));
      const chunks = [];
      for await (const chunk of stream) chunks.push(chunk);
      const answer = Buffer.concat(chunks);
      if (!answer.includes(OK)) throw new Error(`the broker refuses ${id}: ${answer}`);
    } finally {
      session.close();
    }
  }
}
