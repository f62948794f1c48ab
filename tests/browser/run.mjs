// node run.mjs SCRIPT URL GIVEN: opens URL in a headless Chromium, calls SCRIPT's function, prints what it answers as JSON.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

const [script, url, given] = process.argv.slice(2);
const perform = (await import(new URL(script, import.meta.url))).default;
const profile = mkdtempSync(join(tmpdir(), 'pengx-browser-'));
const log = [];
let context;
try {
    // Without the last ones it would look for its maker's servers.
    context = await chromium.launchPersistentContext(profile, {
        executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
        headless: true,
        args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
            '--disable-background-networking', '--disable-component-update', '--disable-sync'],
    });
    const page = context.pages()[0] ?? await context.newPage();
    page.on('console', message => log.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', error => log.push(`error: ${error.message}`));
    await page.goto(url);
    process.stdout.write(JSON.stringify(await perform(page, JSON.parse(given))));
} catch (error) {
    console.error(`${error.stack}\nthe page's log:\n${log.join('\n')}`);
    process.exitCode = 1;
} finally {
    await context?.close();
    rmSync(profile, { recursive: true, force: true });
}
