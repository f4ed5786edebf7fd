// Stands behind the two lines that `leftfold serve` prints for Node, which make `client`.
const { jsonEvent } = require("@kurrent/kurrentdb-client");

(async () => {
  const stream = `printed-${process.pid}-${Date.now()}`;
  await client.appendToStream(stream, jsonEvent({ type: "Printed", data: { works: true } }));
  for await (const { event } of client.readStream(stream)) {
    if (event.type !== "Printed" || event.data.works !== true) throw new Error(`unexpected: ${JSON.stringify(event)}`);
    console.log("ok  the lines that the server prints connect to it");
    process.exit(0);
  }
  throw new Error("nothing was stored");
})();
