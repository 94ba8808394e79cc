// Obeys test_mqttjs.py: one JSON command a line on stdin, one JSON answer or event a line on stdout.
// Buffers (payload, correlationData) travel as base64.

const mqtt = require("mqtt");
const readline = require("readline");

const clients = new Map();

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const encode = (buffer) => buffer.toString("base64");
const decode = (text) => Buffer.from(text, "base64");

function withBuffers(properties) {
  if (properties?.correlationData === undefined) return properties;
  return { ...properties, correlationData: decode(properties.correlationData) };
}

function connect({ peer, options, acknowledges }, answer) {
  if (options.will) {
    options.will.payload = decode(options.will.payload);
    options.will.properties = withBuffers(options.will.properties);
  }
  const client = mqtt.connect({ host: "127.0.0.1", reconnectPeriod: 0, ...options });
  clients.set(peer, client);
  // What was not handled is not acknowledged.
  if (!acknowledges) client.handleMessage = (_, handled) => handled(new Error("not handled"));
  client.on("connect", (connack) => answer({ sessionPresent: connack.sessionPresent }));
  client.on("error", (error) => answer({ error: error.message }));
  let reasonCode = 0;
  client.on("disconnect", (packet) => (reasonCode = packet.reasonCode));
  client.on("close", () => say({ peer, ended: reasonCode }));
  client.on("message", (topic, payload, { qos, retain, properties = {} }) => {
    const { correlationData, userProperties, ...others } = properties;
    const message = { topic, payload: encode(payload), qos, retain, ...others };
    if (correlationData) message.correlationData = encode(correlationData);
    if (userProperties) message.userProperties = { ...userProperties };
    say({ peer, message });
  });
}

function subscribe(client, { filter, options }, answer) {
  client.subscribe(filter, options, (error, granted) => {
    if (error?.packet) answer({ reasonCode: error.packet.granted[0] });
    else if (error) answer({ error: error.message });
    else answer({ reasonCode: granted[0].qos });
  });
}

function publish(client, { topic, payload, options }, answer) {
  options.properties = withBuffers(options.properties);
  let properties = {};
  const look = (packet) => {
    if (packet.cmd === "puback") properties = packet.properties ?? {};
  };
  client.on("packetreceive", look);
  client.publish(topic, decode(payload), options, (error) => {
    client.off("packetreceive", look);
    answer(error ? { error: error.message } : { properties });
  });
}

const commands = {
  subscribe,
  publish,
  unsubscribe: (client, { filter }, answer) =>
    client.unsubscribe(filter, (error) => answer({ error: error?.message })),
  disconnect: (client, _, answer) => client.end(false, () => answer({})),
  cut: (client, _, answer) => {
    client.once("close", () => answer({}));
    client.stream.destroy();
  },
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const { number, command, ...parameters } = JSON.parse(line);
  const answer = (result) => say({ number, ...result });
  if (command === "connect") connect(parameters, answer);
  else commands[command](clients.get(parameters.peer), parameters, answer);
});
