// The page that the Proxmox-API answers shows a guest that boots, and that it is switched off. `given`: off, what to post for
// that; pictures, how many different ones to see; patience, in ms; screenshot, a file for the last.

export default async function (page, given) {
    const wait = (what, holds, argument) => page.waitForFunction(holds, argument, { timeout: given.patience, polling: 200 })
        .catch(error => { throw new Error(`${what}: ${error.message}`); });
    await wait('the screen changes', least => {
        const canvas = document.querySelector('#noVNC_container canvas');
        // Before the guest's first picture it has another size.
        if (!canvas || canvas.width < 640) return false;
        window.pictures ??= new Set();
        window.pictures.add(canvas.toDataURL());
        return window.pictures.size >= least;
    }, given.pictures);
    await page.screenshot({ path: given.screenshot });
    const off = await page.request.post(given.off);
    await wait('the screen goes', () => !document.querySelector('#noVNC_container canvas'));
    return { off: off.status(), told: await off.text() };
}
