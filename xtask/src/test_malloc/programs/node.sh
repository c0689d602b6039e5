# Objects, buffers, JSON, workers and streams.
cat > main.js <<'END'
const crypto = require('crypto'), zlib = require('zlib'), { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
if (!isMainThread) {
    const map = new Map();
    for (let i = 0; i < 200000; i++) map.set('key' + (i * 7919 % 5003), Buffer.alloc(i % 500, i % 256));
    let sum = 0;
    for (const buffer of map.values()) sum += buffer.length;
    parentPort.postMessage([workerData, sum, map.size]);
} else {
    const objects = {};
    for (let i = 0; i < 300000; i++) (objects['key' + i % 10007] ||= []).push({ id: i, text: 'x'.repeat(i % 50) });
    const json = JSON.stringify(objects);
    console.log(json.length, crypto.createHash('sha256').update(json).digest('hex'));
    console.log(Object.keys(JSON.parse(json)).length);
    let buffers = [];
    for (let i = 0; i < 30000; i++) { buffers.push(Buffer.alloc(i % 5000, i)); if (buffers.length > 1000) buffers = buffers.slice(500); }
    const packed = zlib.gzipSync(Buffer.concat(buffers), { level: 6 });
    console.log(packed.length, zlib.gunzipSync(packed).length);
    console.log(json.replace(/"id":(\d*7),/g, '<$1>').length);
    Promise.all([0, 1, 2].map(n => new Promise(done => new Worker(__filename, { workerData: n }).on('message', done)))).then(results => {
        console.log(results);
        require('child_process').execFile(process.execPath, ['-e', 'console.log([...Array(1e5).keys()].map(String).join("").length)'], (error, out) => console.log(error, out));
    });
}
END
node main.js
