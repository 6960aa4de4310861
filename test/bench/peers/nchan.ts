import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { unpackFromApt } from "#src/dev/apt.ts";
import { runServer } from "#src/dev/server.ts";
import { ROOT } from "../lab.ts";
import type { Peer } from "./peer.ts";

const UNPACKED = join(ROOT, ".cache/bench/nchan");
const MODULE = "usr/lib/nginx/modules/ngx_nchan_module.so";

/**
 * nchan, a module of nginx in C: the fastest ready fan-out server to be had from Debian's packages, which are unpacked
 * and run here as a private process, and never installed. It keeps the last messages of a channel in memory: no rows, no
 * decisions, nothing on disk.
 */
export const nchan: Peer = {
  name: "nchan",
  protocol: "nchan",
  async start({ say, signal }) {
    const { program, module } = await programs(say, signal);
    await mkdir(join(ROOT, ".data"), { recursive: true });
    const dir = await mkdtemp(join(ROOT, ".data/nchan-"));
    await chmod(dir, 0o711);
    await mkdir(join(dir, "tmp"));
    await writeFile(join(dir, "nchan.so"), await withOwnPaths(module), "latin1");
    const configFile = join(dir, "nginx.conf");
    const server = await runServer(
      {
        name: "nchan",
        mark: { program: "nginx", path: configFile },
        stopSignal: "TERM",
        command: async (port) => {
          await writeFile(configFile, configuration(dir, port));
          return [program, "-p", `${dir}/`, "-c", configFile];
        },
        greet: async (port) => {
          const url = `http://127.0.0.1:${port}`;
          const answer = await fetch(url, { signal: AbortSignal.timeout(2_000) });
          return { url, version: answer.headers.get("server") ?? "" };
        },
      },
      { dir, erase: true, log: say, signal },
    );
    return {
      pid: Number(await readFile(join(dir, "nginx.pid"), "utf8")),
      address: new URL(server.url).host,
      [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
    };
  },
};

/** The system's own where it is installed, else as unpacked. @throws when apt has no such package. */
async function programs(
  say: (line: string) => void,
  signal: AbortSignal,
): Promise<{ program: string; module: string }> {
  const find = (path: string) => [join(UNPACKED, path), join("/", path)].find(existsSync);
  if (find(MODULE) === undefined) {
    say("fetching Debian's package of nchan, once");
    await unpackFromApt("libnginx-mod-nchan", UNPACKED, signal);
  }
  const [program, module] = [find("usr/sbin/nginx"), find(MODULE)];
  if (program === undefined || module === undefined) throw new Error("Debian's package has no nginx with nchan in it");
  return { program, module };
}

/**
 * The module with its directory for temporary files below nginx's own: it makes the one it was built with, whatever the
 * configuration says, which only root could, and which would stay behind.
 */
async function withOwnPaths(module: string): Promise<string> {
  const built = "/var/lib/nginx/";
  const text = (await readFile(module)).toString("latin1");
  return text.replaceAll(built, "tmp".padEnd(built.length, "/"));
}

function configuration(dir: string, port: number): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `
load_module ${join(dir, "nchan.so")};
daemon off;
master_process off;
pid ${join(dir, "nginx.pid")};
error_log stderr error;
events { worker_connections 18000; }
http {
  access_log off;
  ${temporary.map((name) => `${name}_temp_path ${join(dir, "tmp", name)};`).join(" ")}
  nchan_shared_memory_size 1g;
  nchan_message_timeout 1h;
  nchan_message_buffer_length 100;
  keepalive_requests 1000000000;
  server {
    listen 127.0.0.1:${port} backlog=8192;
    location = /subscribe {
      nchan_subscriber eventsource;
      nchan_channel_id $arg_user all;
      nchan_subscriber_first_message newest;
      nchan_eventsource_ping_interval 0;
    }
    location = /publish {
      nchan_publisher;
      nchan_channel_id $arg_channel;
    }
  }
}
`;
}
