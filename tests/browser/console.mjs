// noVNC, as its package is, looks at a guest that boots. `given`: vm, the VM's URL; pictures, how many different ones to see;
// patience, in ms; screenshot, a file for the last.

// Runs in the page.
async function look(url) {
    const { default: RFB } = await import(new URL('novnc/core/rfb.js', document.baseURI));
    window.told = [];
    window.pictures = new Set();
    window.rfb = new RFB(document.getElementById('screen'), url);
    for (const what of ['connect', 'disconnect', 'securityfailure', 'credentialsrequired']) {
        window.rfb.addEventListener(what, event => window.told.push({ what, ...event.detail }));
    }
}

export default async function (page, given) {
    const made = await page.request.post(`${given.vm}console/`);
    if (made.status() !== 201) throw new Error(`${made.status()}: ${await made.text()}`);
    const url = (await made.text()).match(/<url>(.*)<\/url>/)[1];
    await page.evaluate(look, url);
    const told = () => page.evaluate(() => window.told);
    const wait = (what, holds, argument) => page.waitForFunction(holds, argument, { timeout: given.patience, polling: 200 })
        .catch(async error => { throw new Error(`${what}: ${error.message}; it was told ${JSON.stringify(await told())}`); });
    await wait('it connects', () => window.told.some(({ what }) => what === 'connect'));
    await wait('the screen changes', least => {
        window.pictures.add(document.querySelector('#screen canvas').toDataURL());
        return window.pictures.size >= least;
    }, given.pictures);
    await page.screenshot({ path: given.screenshot });
    const size = await page.evaluate(() => { const c = document.querySelector('#screen canvas'); return [c.width, c.height]; });
    // Not by the page, which is not the administrator's.
    const off = await page.request.post(`${given.vm}poweroff/`);
    await wait('it ends', () => window.told.some(({ what }) => what === 'disconnect'));
    return { url, size, off: off.status(), told: await told() };
}
