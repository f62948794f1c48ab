// Two web pages that ask as VirtDancer's own do, on a server with a VM that runs and one that is off. The browser was logged in
// at the first page and is not again. `given`: base, the URL of the root; web and db, the VMs; patience, in ms.

export default async function (page, given) {
    const seen = { requests: [], log: [] };
    page.on('request', request => {
        const { pathname, search } = new URL(request.url());
        seen.requests.push(`${request.method()} ${pathname}${search}`);
    });
    page.on('console', message => seen.log.push(message.text()));
    const wait = (holds, argument) => page.waitForFunction(holds, argument, { timeout: given.patience });
    const says = (id, text) => wait(([id, text]) => document.getElementById(id).textContent === text, [id, text]);
    const texts = selector => page.locator(selector).allTextContents();

    await page.goto(`${given.base}/`);
    seen.landed = page.url();
    await says('running', '1/2 running');
    seen.listed = await texts('#list li');
    seen.firstRequests = seen.requests.splice(0);
    const press = async action => {
        const answered = page.waitForResponse(answer => answer.url().endsWith('/action'));
        await page.click(`[data-action=${action}]`);
        const answer = await answered;
        seen.pressed.push([action, answer.request().postData(), answer.status(), await answer.text()]);
    };
    seen.pressed = [];
    await page.click('#list li:has-text("db-2")');
    await says('about', `ID: -1 UUID: ${given.db}`);
    await press('destroy');
    for (const action of ['start', 'pause', 'start']) await press(action);
    await page.reload();
    await says('running', '2/2 running');
    await page.click('#list li:has-text("db-2")');
    await press('shutdown');
    await wait(async url => !(await (await fetch(url)).json()).active, `/vm/${given.db}`);

    seen.requests = [];
    await page.goto(`${given.base}/ui/dashboard`);
    const charted = (least, count) => wait(([least, count]) => {
        const lines = Object.values(window.charts).map(Object.values);
        return lines.length === count && lines.every(all => all.length && all.every(line => line.length >= least));
    }, [least, count]);
    await charted(3, 3);
    seen.dashboard = await page.evaluate(() => window.charts);
    seen.newListed = await texts('#list li');
    seen.dashboardRequests = [...new Set(seen.requests.splice(0))];
    await page.goto(`${given.base}/ui/vm-detail/${given.web}`);
    await charted(3, 1);
    seen.vm = await page.evaluate(() => window.charts);
    seen.detail = await texts('#detail dd');
    seen.detailRequests = [...new Set(seen.requests.splice(0))];

    const opened = page.waitForEvent('websocket');
    await page.goto(`${given.base}/vnc.html?uuid=${given.web}`);
    seen.socket = (await opened).url();
    await says('name', 'web-1');
    // The screen is red until it is asked a second time.
    const pixel = color => wait(color => {
        const canvas = document.querySelector('#screen canvas');
        return canvas?.width > 0 && `${canvas.getContext('2d').getImageData(5, 5, 1, 1).data}` === color;
    }, color);
    await pixel('0,0,255,255');
    seen.size = await page.evaluate(() => { const c = document.querySelector('#screen canvas'); return [c.width, c.height]; });
    await page.evaluate(url => fetch(url, { method: 'POST', body: '{"action":"destroy"}' }), `/vm/${given.web}/action`);
    await says('state', ' connect disconnect');
    return seen;
}
