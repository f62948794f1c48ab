// Asks as VirtDancer's second web page does: the list once; on the dashboard and for one VM a chart for each URL, every second.
'use strict';
const byId = id => document.getElementById(id);
const get = async url => {
    const answer = await fetch(`/api${url}`, { headers: { Accept: 'application/json, text/plain, */*' } });
    if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
    return answer.json();
};
const entry = (tag, text) => {
    const element = document.createElement(tag);
    element.textContent = text;
    return element;
};
const mib = kib => `${kib * 1024 / 1048576} MiB`;

// What the charts show: by URL, by line. `keys`: the lines, else whatever the answer has.
window.charts = {};

function chart(url, mode, keys) {
    const lines = window.charts[url] = {};
    const before = {};
    setInterval(async () => {
        const answer = await get(url);
        const now = Date.now();
        for (const key of keys ?? Object.keys(answer)) {
            let value = answer[key];
            if (mode === 'difference') {
                const last = before[key];
                before[key] = { value, now };
                if (last === undefined) continue;
                value = (value - last.value) / ((now - last.now) / 1000);
            }
            (lines[key] ??= []).push(value / 1);
        }
    }, 1000);
}

async function detail(uuid) {
    const vm = await get(`/vm/${uuid}`);
    const rows = [['name', vm.name], ['uuid', vm.uuid], ['active', vm.active]];
    if (vm.updated !== undefined) {
        rows.push(['persistent', vm.persistent], ['autostart', vm.autostart], ['os', vm.os]);
        rows.push(['memory', mib(vm.info.memory)], ['most', mib(vm.info.maxMem)], ['cpus', vm.info.nrVirtCpu]);
    }
    byId('detail').replaceChildren(...rows.flatMap(([key, value]) => [entry('dt', key), entry('dd', value)]));
    chart(`/vm/${uuid}/stats/cpu`, 'raw');
}

get('/vm').then(list => {
    list.sort((a, b) => b.active - a.active || a.name.localeCompare(b.name));
    byId('list').replaceChildren(...list.map(vm => entry('li', `${vm.active ? 'on' : 'off'} ${vm.name}`)));
});
const [, page, uuid] = location.pathname.match(/^\/ui\/([^/]*)\/?(.*)$/);
if (page === 'dashboard') {
    chart('/stats/cpu', 'percentage', ['usr', 'sys']);
    chart('/stats/mem', 'raw', ['memFree', 'memBuffer', 'swapFree']);
    chart('/stats/nic?filter=physical', 'difference');
}
if (page === 'vm-detail') detail(uuid);
