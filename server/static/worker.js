// The shared worker: one hub for all tabs.
import { Hub } from "./stream.js";

const hub = new Hub();
addEventListener("connect", ({ ports: [port] }) => {
  port.onmessage = ({ data }) => hub.take(data, (message) => port.postMessage(message));
});
