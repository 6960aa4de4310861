import type { Sql } from "postgres";

/**
 * What waits for seconds or a minute waits a moment: the next step of an escalation (ten seconds at least), a hand-over
 * whose claimer is gone, and one that is tried again. Only its length is another: who claims what, and what is told of it,
 * is as ever. Who still is at a hand-over when that moment is over is overtaken, as one that was paused.
 */
export async function shortenWaits(sql: Sql, ms: { step: number; lease: number }): Promise<void> {
  const later = (waits: number) => `clock_timestamp() + interval '${waits} milliseconds'`;
  await sql.unsafe(`
    create or replace function lab_sooner_step() returns trigger language plpgsql as $$ begin
      new.due_at = least(new.due_at, ${later(ms.step)});
      new.turn_at = least(new.turn_at, ${later(ms.step)});
      return new;
    end $$;
    create or replace function lab_sooner_hand_over() returns trigger language plpgsql as $$ begin
      new.due_at = least(new.due_at, ${later(ms.lease)});
      return new;
    end $$;
    create or replace trigger lab_sooner before insert or update on escalations
      for each row when (new.due_at is not null) execute function lab_sooner_step();
    create or replace trigger lab_sooner before insert or update on hand_overs
      for each row execute function lab_sooner_hand_over();`);
}
