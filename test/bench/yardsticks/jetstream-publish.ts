// Small messages into a JetStream stream on disk, each acknowledged: what a queue message for every notification would cost.
import { connect, RetentionPolicy, StorageType } from "nats";
import { measure, serveJob, tell } from "../child-side.ts";

export type JetStreamPublishJob = {
  url: string;
  /** Publishes waiting for their acknowledgement at the same time. */
  callers: number;
  bytes: number;
  warmupMs: number;
  measureMs: number;
};

const STREAM = "bench_yardstick";

serveJob<JetStreamPublishJob>(async (job, closing) => {
  const connection = await connect({ servers: job.url });
  const manager = await connection.jetstreamManager();
  closing(async () => {
    await manager.streams.delete(STREAM).catch(() => undefined);
    await connection.close();
  });
  await manager.streams.add({
    name: STREAM,
    subjects: [`${STREAM}.>`],
    retention: RetentionPolicy.Workqueue,
    storage: StorageType.File,
  });
  const stream = connection.jetstream();
  const payload = new Uint8Array(job.bytes);
  tell(
    "result",
    await measure(job, async (caller) => {
      await stream.publish(`${STREAM}.${caller % 16}`, payload);
      return 1;
    }),
  );
});
